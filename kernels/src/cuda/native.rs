//! A real GPU by way of NVIDIA's driver, whose library is looked for when it is asked for: a machine
//! without one runs the same program.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::driver::{Address, DeviceLost, Driver, Launch, List, Work};
use super::program;
use crate::device::DeviceError;
use graphs::Graphs;

mod compile;
mod graphs;

/// The oldest driver, as it numbers itself: that of CUDA 12.0, which every JetPack 6 has.
const OLDEST_DRIVER: i32 = 12_000;

/// The oldest architecture the kernels are written for: Ampere, which Orin (8.7) belongs to.
const OLDEST_ARCHITECTURE: (i32, i32) = (8, 0);

/// Uploads of at most this many bytes do not wait.
const SMALL: usize = 64 << 10;

/// Pinned memory that small uploads go through, one after the other.
const STAGING: usize = 1 << 20;

/// Why there is no GPU to use, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // The messages say what the fields are.
pub enum OpenError {
    #[error("no NVIDIA driver: libcuda.so is not on this machine")]
    NoDriver,
    #[error("the NVIDIA driver serves CUDA {}.{} and 12.0 is needed: update it", has / 1000, has % 1000 / 10)]
    OldDriver { has: i32 },
    #[error("there is no GPU {ordinal}, the driver knows {count}")]
    NoDevice { ordinal: usize, count: usize },
    #[error("{name} has compute capability {}.{}, the kernels need 8.0", has.0, has.1)]
    OldDevice { name: String, has: (i32, i32) },
    #[error("no libnvrtc.so to compile the kernels with: install CUDA's run-time compiler (cuda-nvrtc)")]
    NoCompiler,
    #[error("the kernels do not compile: {0}")]
    Kernels(String),
    #[error("the NVIDIA driver fails {doing}: {reason}")]
    Broken { doing: &'static str, reason: String },
    #[error("the GPU computes {what} wrongly")]
    Wrong { what: &'static str },
    #[error(transparent)]
    Lost(DeviceLost),
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Where compiled kernels are kept between runs. What it gives back has to be what it was given.
pub trait Shelf {
    /// What was put there under a name.
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    /// Keeps something; it may as well be lost.
    fn put(&self, key: &str, compiled: &[u8]);
}

/// Whether there is a driver at all. Nothing below may be called without one.
fn is_present() -> bool {
    // SAFETY: loading the driver's library runs its initialisers, which is what it is there for.
    unsafe { sys::is_culib_present() }
}

/// A GPU, its queue and the kernels on it.
#[derive(Debug)]
pub struct Gpu {
    context: Arc<CudaContext>,
    stream: sys::CUstream,
    module: sys::CUmodule,
    functions: HashMap<&'static str, sys::CUfunction>,
    staging: Mutex<Staging>,
    graphs: Mutex<Graphs>,
    name: String,
}

// SAFETY: the handles belong to the driver, which takes calls from any thread once the context is
// current there; every call below makes it so. The staging memory is behind a lock.
unsafe impl Send for Gpu {}
// SAFETY: as above.
unsafe impl Sync for Gpu {}

/// Pinned memory in use up to `used`.
#[derive(Debug)]
struct Staging {
    start: *mut u8,
    used: usize,
}

fn broken(doing: &'static str) -> impl Fn(DriverError) -> OpenError {
    move |error| OpenError::Broken { doing, reason: format!("{:?}", error.0) }
}

fn lost(doing: &'static str) -> impl Fn(DriverError) -> DeviceLost {
    move |error| DeviceLost { doing, reason: format!("{:?}", error.0) }
}

impl Gpu {
    /// Opens GPU `ordinal` and brings the kernels there, compiling them if `shelf` does not have them.
    pub fn open(ordinal: usize, shelf: &dyn Shelf) -> Result<Self, OpenError> {
        if !is_present() {
            return Err(OpenError::NoDriver);
        }
        let mut has = 0;
        // SAFETY: there is a driver, and it writes one number.
        unsafe { sys::cuDriverGetVersion(&raw mut has) }.result().map_err(broken("to tell its version"))?;
        if has < OLDEST_DRIVER {
            return Err(OpenError::OldDriver { has });
        }
        result::init().map_err(broken("to start"))?;
        let count = result::device::get_count().map_err(broken("to count GPUs"))?;
        if ordinal >= usize::try_from(count).unwrap_or(0) {
            return Err(OpenError::NoDevice { ordinal, count: usize::try_from(count).unwrap_or(0) });
        }
        let context = CudaContext::new(ordinal).map_err(broken("to open the GPU"))?;
        let name = context.name().map_err(broken("to name the GPU"))?;
        let capability = context.compute_capability().map_err(broken("to describe the GPU"))?;
        if capability < OLDEST_ARCHITECTURE {
            return Err(OpenError::OldDevice { name, has: capability });
        }
        let architecture = format!("sm_{}{}", capability.0, capability.1);
        let module = module(&architecture, shelf)?;
        Self::with_module(context, module, &format!("cuda-{architecture}-{}", name.replace(' ', "-")))
    }

    fn with_module(context: Arc<CudaContext>, module: sys::CUmodule, name: &str) -> Result<Self, OpenError> {
        let mut functions = HashMap::new();
        for kernel in program::kernels() {
            let name = CString::new(kernel).expect("names of kernels have no zeros");
            // SAFETY: the module was loaded and stays so as long as `self`.
            let function = unsafe { result::module::get_function(module, name) };
            functions.insert(kernel, function.map_err(broken("to find a kernel"))?);
        }
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        let stream = stream.map_err(broken("to make a queue"))?;
        // SAFETY: the context is current on this thread; the memory is freed when `self` is dropped.
        let start = unsafe { result::malloc_host(STAGING, 0) }.map_err(broken("to pin memory"))?;
        let staging = Mutex::new(Staging { start: start.cast(), used: 0 });
        let graphs = Mutex::new(Graphs::default());
        Ok(Self { context, stream, module, functions, staging, graphs, name: name.to_owned() })
    }

    /// Seconds that the GPU took for what `work` asked of it, by its own clock.
    pub fn time(&self, work: impl FnOnce()) -> Result<f64, DeviceLost> {
        const DOING: &str = "taking the time";
        self.bind(DOING)?;
        let event = || result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(lost(DOING));
        let (first, last) = (event()?, event()?);
        // SAFETY: both events were just made and the stream lives as long as `self`.
        unsafe { result::event::record(first, self.stream) }.map_err(lost(DOING))?;
        work();
        // SAFETY: as above; both are over once the queue is empty, and are destroyed once.
        unsafe {
            result::event::record(last, self.stream).map_err(lost(DOING))?;
            self.wait(DOING)?;
            let milliseconds = result::event::elapsed(first, last).map_err(lost(DOING))?;
            result::event::destroy(first).map_err(lost(DOING))?;
            result::event::destroy(last).map_err(lost(DOING))?;
            Ok(f64::from(milliseconds) / 1e3)
        }
    }

    fn bind(&self, doing: &'static str) -> Result<(), DeviceLost> {
        self.context.bind_to_thread().map_err(lost(doing))
    }

    fn wait(&self, doing: &'static str) -> Result<(), DeviceLost> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(lost(doing))
    }
}

/// The kernels on the device whose context is current. What was kept but does not load is compiled
/// again.
fn module(architecture: &str, shelf: &dyn Shelf) -> Result<sys::CUmodule, OpenError> {
    let version = compile::version()?;
    let key = program::key(architecture, version);
    // SAFETY: a whole image, which the driver checks, is given; the context is current.
    let load = |image: &[u8]| unsafe { result::module::load_data(image.as_ptr().cast()) };
    if let Some(module) = shelf.get(&key).and_then(|image| load(&image).ok()) {
        return Ok(module);
    }
    let image = compile::compile(&program::source(), architecture)?;
    let module = load(&image).map_err(broken("to load the kernels"))?;
    shelf.put(&key, &image);
    Ok(module)
}

impl Driver for Gpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn alloc(&self, bytes: usize) -> Result<Address, DeviceError> {
        let full = |_| DeviceError::OutOfMemory { what: "a buffer", bytes };
        self.context.bind_to_thread().map_err(full)?;
        // SAFETY: the context is current.
        let address = unsafe { result::malloc_sync(bytes) }.map_err(full)?;
        // SAFETY: the memory was just given, and the stream lives as long as `self`.
        let cleared = unsafe { sys::cuMemsetD8Async(address, 0, bytes, self.stream) }.result();
        cleared.map(|()| address).map_err(full)
    }

    unsafe fn free(&self, address: Address, _: usize) {
        // What fails here has failed before, and was reported there.
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: the caller's.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    unsafe fn upload(&self, bytes: &[u8], to: Address) -> Result<(), DeviceLost> {
        const DOING: &str = "uploading";
        self.bind(DOING)?;
        if bytes.len() > SMALL {
            // SAFETY: the caller's, and `bytes` is borrowed until the queue is empty.
            unsafe { result::memcpy_htod_async(to, bytes, self.stream) }.map_err(lost(DOING))?;
            return self.wait(DOING);
        }
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.used + bytes.len() > STAGING {
            self.wait(DOING)?;
            staging.used = 0;
        }
        // SAFETY: so many bytes are left of the staging memory, and no copy from there is under way:
        // those before `used` are apart, and the others were waited for.
        let staged = unsafe {
            let place = staging.start.add(staging.used);
            place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            std::slice::from_raw_parts(place, bytes.len())
        };
        staging.used += bytes.len();
        // SAFETY: the caller's; the staged bytes stay until the queue was waited for.
        unsafe { result::memcpy_htod_async(to, staged, self.stream) }.map_err(lost(DOING))
    }

    unsafe fn download(&self, from: Address, into: &mut [u8]) -> Result<(), DeviceLost> {
        const DOING: &str = "downloading";
        self.bind(DOING)?;
        // SAFETY: the caller's, and `into` is borrowed until the copy is done.
        unsafe { result::memcpy_dtoh_async(into, from, self.stream) }.map_err(lost(DOING))?;
        self.wait(DOING)
    }

    unsafe fn run(&self, list: &List) -> Result<(), DeviceLost> {
        self.bind("a list")?;
        let mut graphs = self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        if !graphs.wants(list) {
            // SAFETY: the caller's.
            return unsafe { self.enqueue(list) };
        }
        let graph = match graphs.find(list) {
            Some(graph) => graph,
            // SAFETY: the caller's.
            None => match unsafe { self.record(list) } {
                Ok(graph) => graphs.keep(list, graph),
                // Without graphs it works as well, if the device does.
                Err(_) => {
                    graphs.give_up();
                    // SAFETY: the caller's.
                    return unsafe { self.enqueue(list) };
                }
            },
        };
        // SAFETY: the graph was made of this list and is destroyed with `self` or when it is replaced.
        unsafe { result::graph::launch(graph, self.stream) }.map_err(lost("a graph"))
    }
}

impl Gpu {
    /// Puts everything of a list into the stream.
    ///
    /// # Safety
    ///
    /// That of [`Driver::run`].
    unsafe fn enqueue(&self, list: &List) -> Result<(), DeviceLost> {
        for work in list.iter() {
            match work {
                Work::Copy { from, to, bytes } => {
                    // SAFETY: the caller's.
                    unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
                        .map_err(lost("copying"))?;
                }
                // SAFETY: the caller's.
                Work::Launch(launch) => unsafe { self.launch(launch) }.map_err(lost(launch.kernel))?,
            }
        }
        Ok(())
    }

    /// # Safety
    ///
    /// That of [`Driver::run`].
    unsafe fn launch(&self, launch: Launch<'_>) -> Result<(), DriverError> {
        let Launch { kernel, grid, threads, arguments } = launch;
        let mut values = [std::ptr::null_mut(); 16];
        for (value, argument) in values.iter_mut().zip(arguments) {
            *value = argument.as_pointer().cast_mut();
        }
        let function = self.functions[kernel];
        let (grid, block) = ((grid[0], grid[1], 1), (threads, 1, 1));
        let values = &mut values[..arguments.len()];
        // SAFETY: the caller's; the driver copies the values before it returns.
        unsafe { result::launch_kernel(function, grid, block, 0, self.stream, values) }
    }

    /// Makes a graph of a list; nothing of it is done.
    ///
    /// # Safety
    ///
    /// That of [`Driver::run`].
    unsafe fn record(&self, list: &List) -> Result<sys::CUgraphExec, DriverError> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`, and a capture that was begun is ended.
        let graph = unsafe {
            result::stream::begin_capture(self.stream, mode)?;
            let enqueued = self.enqueue(list);
            let graph = result::stream::end_capture(self.stream)?;
            if enqueued.is_err() || graph.is_null() {
                return Err(DriverError(sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
            }
            graph
        };
        let mut made = std::ptr::null_mut();
        // SAFETY: the graph was just made, and is not needed once it can be launched.
        unsafe {
            let done = sys::cuGraphInstantiateWithFlags(&raw mut made, graph, 0).result();
            result::graph::destroy(graph)?;
            done.map(|()| made)
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_err() {
            return;
        }
        let start = self.staging.get_mut().unwrap_or_else(PoisonError::into_inner).start;
        // What fails at the end has nobody to tell. SAFETY: all three were made for `self` alone, and
        // buffers keep `self` as long as they live.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            self.graphs.get_mut().unwrap_or_else(PoisonError::into_inner).give_up();
            let _ = result::free_host(start.cast());
            let _ = result::stream::destroy(self.stream);
            let _ = result::module::unload(self.module);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Empty;

    impl Shelf for Empty {
        fn get(&self, _: &str) -> Option<Vec<u8>> {
            None
        }

        fn put(&self, _: &str, _: &[u8]) {}
    }

    #[test]
    fn a_machine_without_a_driver_or_a_device_says_so() {
        let error = Gpu::open(1 << 20, &Empty).unwrap_err();
        if is_present() {
            let is_one_line = !error.to_string().contains('\n');
            assert!(is_one_line && error != OpenError::NoDriver, "{error}");
        } else {
            assert_eq!(error, OpenError::NoDriver);
        }
    }

    #[test]
    fn errors_name_what_is_missing() {
        let error = OpenError::OldDriver { has: 11_040 };
        assert_eq!(error.to_string(), "the NVIDIA driver serves CUDA 11.4 and 12.0 is needed: update it");
    }
}
