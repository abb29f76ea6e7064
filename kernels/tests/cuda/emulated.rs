//! A driver for the emulated GPU: `emulate.h`, the kernels and `emulate.cpp` as one shared library.

use std::ffi::{CString, c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use kernels::cuda::driver::{Address, DeviceLost, Driver, Launch, List, Work};
use kernels::cuda::program;
use kernels::device::DeviceError;

/// Contraction is off, as the kernels are compiled for a GPU; what is undefined stops the test.
const OPTIONS: [&str; 13] = [
    "-std=c++17",
    "-O2",
    "-march=native",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-U_FORTIFY_SOURCE",
    "-fsanitize=alignment,bounds,shift,signed-integer-overflow",
    "-fsanitize-undefined-trap-on-error",
    "-fvisibility=hidden",
    "-shared",
    "-fPIC",
    "-Wall",
    "-Wno-unknown-pragmas",
];

/// A new emulated GPU.
pub(crate) fn gpu() -> Emulated {
    Emulated { library: library() }
}

/// The functions of the library.
struct Library {
    alloc: unsafe extern "C" fn(usize) -> *mut u8,
    free: unsafe extern "C" fn(*mut u8, usize) -> bool,
    launch: unsafe extern "C" fn(*const c_char, *const u32, u32, *const *const c_void, u32) -> bool,
    /// There is one GPU, and it runs one kernel at a time.
    turn: Mutex<()>,
}

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| open(&build()))
}

/// The source of the library: every kernel is registered under its name.
fn source() -> String {
    let mut source = String::from(include_str!("emulate.h"));
    source.extend(program::SOURCES);
    source.push_str("\n#define REGISTRY");
    program::kernels().for_each(|kernel| source.push_str(&format!(" KERNEL({kernel})")));
    source.push('\n');
    source.push_str(include_str!("emulate.cpp"));
    source
}

/// Compiles the library unless it is there from an earlier run.
fn build() -> PathBuf {
    let source = source();
    let mut hasher = DefaultHasher::new();
    (&source, OPTIONS).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let name = format!("emulated-{:016x}", hasher.finish());
    let library = folder.join(format!("{name}.so"));
    if !library.exists() {
        let (text, new) = (folder.join(format!("{name}.cpp")), folder.join(format!("{name}.new")));
        std::fs::write(&text, source).expect("room for the source");
        let output = Command::new("g++").args(OPTIONS).arg(&text).arg("-o").arg(&new).output();
        let output = output.expect("g++ is there: .ci/setup installs it");
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !log.contains("warning:"), "{log}");
        std::fs::rename(new, &library).expect("the library stays in its folder");
    }
    library
}

fn open(path: &Path) -> Library {
    let path = CString::new(path.to_str().expect("a path in UTF-8")).expect("a path without zeros");
    // SAFETY: the library was made above and does nothing when it is loaded.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{path:?} does not load");
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the library is never closed.
        let symbol = unsafe { libc::dlsym(handle, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?} is not in {path:?}");
        symbol
    };
    // SAFETY: these are the types that emulate.cpp gives them.
    unsafe {
        Library {
            alloc: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(usize) -> *mut u8>(symbol(
                c"emulated_alloc",
            )),
            free: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut u8, usize) -> bool>(symbol(
                c"emulated_free",
            )),
            launch: std::mem::transmute::<
                *mut c_void,
                unsafe extern "C" fn(*const c_char, *const u32, u32, *const *const c_void, u32) -> bool,
            >(symbol(c"emulated_launch")),
            turn: Mutex::new(()),
        }
    }
}

/// The emulated GPU.
pub(crate) struct Emulated {
    library: &'static Library,
}

impl Driver for Emulated {
    fn name(&self) -> String {
        "cuda-emulated".to_owned()
    }

    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError> {
        if bytes > 1 << 40 {
            return Err(DeviceError::OutOfMemory { what: "a buffer", bytes });
        }
        // SAFETY: it maps new memory.
        let start = unsafe { (self.library.alloc)(bytes) };
        if start.is_null() {
            return Err(DeviceError::OutOfMemory { what: "a buffer", bytes });
        }
        Ok(start as Address)
    }

    unsafe fn free(&self, address: Address, bytes: usize) {
        // SAFETY: the caller's.
        let is_whole = unsafe { (self.library.free)(address as *mut u8, bytes) };
        assert!(is_whole, "a kernel wrote beyond {bytes} bytes");
    }

    unsafe fn upload(&self, bytes: &[u8], to: Address) -> Result<(), DeviceLost> {
        // SAFETY: the caller's; device memory is never the host's.
        unsafe { (to as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: Address, into: &mut [u8]) -> Result<(), DeviceLost> {
        // SAFETY: as above.
        unsafe { into.as_mut_ptr().copy_from_nonoverlapping(from as *const u8, into.len()) };
        Ok(())
    }

    unsafe fn run(&self, list: &List) -> Result<(), DeviceLost> {
        for work in list.iter() {
            match work {
                // SAFETY: the caller's.
                Work::Copy { from, to, bytes } => unsafe {
                    (to as *mut u8).copy_from_nonoverlapping(from as *const u8, bytes);
                },
                // SAFETY: the caller's.
                Work::Launch(launch) => unsafe { self.launch(launch) },
            }
        }
        Ok(())
    }
}

impl Emulated {
    /// # Safety
    ///
    /// That of [`Driver::run`].
    unsafe fn launch(&self, launch: Launch<'_>) {
        let Launch { kernel, grid, threads, arguments } = launch;
        let values: Vec<*const c_void> = arguments.iter().map(|argument| argument.as_pointer()).collect();
        let name = CString::new(kernel).expect("names of kernels have no zeros");
        let _turn = self.library.turn.lock().expect("no kernel panics");
        let count = values.len() as u32;
        // SAFETY: the caller's; what is beyond a buffer is guarded and stops the test.
        let has_run =
            unsafe { (self.library.launch)(name.as_ptr(), grid.as_ptr(), threads, values.as_ptr(), count) };
        assert!(has_run, "no kernel {kernel} takes {count} arguments and {threads} threads");
    }
}
