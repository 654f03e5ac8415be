//! Generates the gRPC types. protox compiles the .proto files, so that no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["link.proto", "rooms.proto", "auth.proto", "health.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    tonic_prost_build::configure()
        // Frames are shared, not copied, on their way through.
        .bytes(".")
        .include_file("edgeway.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
