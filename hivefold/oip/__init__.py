"""The Open Inference Protocol (KServe v2, as Triton numbers it): its messages, and tensors to and from them."""
