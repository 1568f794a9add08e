"""Which models take the same time whatever the values in their inputs are: those may be timed once and trusted. Pure.

Only operators whose work, and whose outputs' shapes, follow from the shapes of what goes in. Left out are those that
repeat or branch (Loop, If, Scan), whose output is as large as a value says (Range, Expand, Tile, NonZero, ...), and
whatever works on texts.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

_NAMES: Final = """
    Abs Acos Acosh Add And ArgMax ArgMin ArrayFeatureExtractor Asin Asinh Atan Atanh AveragePool BatchNormalization
    Binarizer Cast Ceil Celu Clip Concat Constant Conv ConvTranspose Cos Cosh DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp FeatureVectorizer Flatten Floor FusedMatMul Gather Gelu Gemm GlobalAveragePool GlobalMaxPool Greater
    GreaterOrEqual HardSigmoid HardSwish Hardmax Identity Imputer InstanceNormalization IsInf IsNaN LRN
    LayerNormalization LeakyRelu Less LessOrEqual LinearClassifier LinearRegressor Log LogSoftmax LpNormalization
    MatMul MatMulInteger Max MaxPool Mean Min Mish Mod Mul Neg Normalizer Not Or PRelu Pow QLinearConv QLinearMatMul
    QuantizeLinear Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Round SVMClassifier SVMRegressor Scaler Selu Shape Sigmoid Sign Sin Sinh
    Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Transpose TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor Unsqueeze Where Xor
    """
_STEADY: Final = frozenset(_NAMES.split())


def is_steady(operators: Collection[str]) -> bool:
    """Whether a model that uses these operators, and no others, takes a time that its inputs' shapes decide."""
    return bool(operators) and _STEADY.issuperset(operators)
