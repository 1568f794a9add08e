//! Makes the messages from the protos, with `protoc` (or what PROTOC names); HIVEFOLD_ROOT is the repository.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-env-changed=HIVEFOLD_ROOT");
    let root = std::env::var("HIVEFOLD_ROOT").unwrap_or_else(|_| "../../..".to_owned());
    let roots = [format!("{root}/protos"), format!("{root}/examples/clients/protos")];
    let protos = [
        format!("{root}/protos/hivefold/v1/job_service.proto"),
        format!("{root}/protos/hivefold/v1/fleet_service.proto"),
        format!("{root}/protos/inference/open_inference.proto"),
        format!("{root}/examples/clients/protos/health.proto"),
        format!("{root}/examples/clients/protos/error_details.proto"),
    ];
    prost_build::Config::new().compile_protos(&protos, &roots)
}
