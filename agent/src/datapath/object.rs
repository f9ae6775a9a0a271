//! The kernel programs, embedded by the build script. Read by the loader of `datapath`.

/// The object that is attached unless somebody asks for logs. `None` in a build without kernel programs.
pub fn normal() -> Option<&'static [u8]> {
    present(aya::include_bytes_aligned!(concat!(
        env!("OUT_DIR"),
        "/weir.o"
    )))
}

/// The object that logs every verdict through aya-log. `None` when it was not built.
pub fn debug() -> Option<&'static [u8]> {
    present(aya::include_bytes_aligned!(concat!(
        env!("OUT_DIR"),
        "/weir-debug.o"
    )))
}

/// The build script leaves an empty file where there is no object.
fn present(bytes: &'static [u8]) -> Option<&'static [u8]> {
    if bytes.is_empty() { None } else { Some(bytes) }
}
