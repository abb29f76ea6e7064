//! From source to a cubin by NVRTC, whose library is looked for as the driver's is.

use std::ffi::CString;

use cudarc::nvrtc::{result, sys};

use super::OpenError;
use crate::cuda::program;

/// Major and minor version of the compiler.
pub(super) fn version() -> Result<(i32, i32), OpenError> {
    // SAFETY: loading the compiler's library runs its initialisers.
    if !unsafe { sys::is_culib_present() } {
        return Err(OpenError::NoCompiler);
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and it writes two numbers.
    let done = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result();
    done.map(|()| (major, minor)).map_err(|error| OpenError::Kernels(format!("{:?}", error.0)))
}

/// Compiles `source` for an architecture such as `sm_87`.
pub(super) fn compile(source: &str, architecture: &str) -> Result<Vec<u8>, OpenError> {
    let failed = |error: result::NvrtcError| OpenError::Kernels(format!("{:?}", error.0));
    let source = CString::new(source).map_err(|_| OpenError::Kernels("a zero in the source".to_owned()))?;
    let program = result::create_program(&source, None).map_err(failed)?;
    let architecture = format!("--gpu-architecture={architecture}");
    let options: Vec<&str> = program::OPTIONS.into_iter().chain([architecture.as_str()]).collect();
    // SAFETY: the program was just made; it is destroyed below and not used afterwards.
    unsafe {
        let compiled = match result::compile_program(program, &options) {
            Ok(()) => cubin(program).map_err(failed),
            Err(error) => Err(first_error(program).map_or_else(|| failed(error), OpenError::Kernels)),
        };
        let _ = result::destroy_program(program);
        compiled
    }
}

/// # Safety
///
/// The program was compiled and not destroyed.
unsafe fn cubin(program: sys::nvrtcProgram) -> Result<Vec<u8>, result::NvrtcError> {
    let mut bytes = 0_usize;
    // SAFETY: the caller's; one number is written.
    unsafe { sys::nvrtcGetCUBINSize(program, &raw mut bytes) }.result()?;
    let mut image = vec![0_u8; bytes];
    // SAFETY: the caller's; there is room for as many bytes as it said.
    unsafe { sys::nvrtcGetCUBIN(program, image.as_mut_ptr().cast()) }.result()?;
    Ok(image)
}

/// The first line of the log that names an error.
///
/// # Safety
///
/// The program was given to the compiler and not destroyed.
unsafe fn first_error(program: sys::nvrtcProgram) -> Option<String> {
    // SAFETY: the caller's.
    let log = unsafe { result::get_program_log(program) }.ok()?;
    let bytes: Vec<u8> = log.into_iter().map(|byte| byte as u8).collect();
    let log = String::from_utf8_lossy(&bytes).into_owned();
    log.lines().find(|line| line.contains("error")).map(str::to_owned)
}
