//! A thin layer over the kernel: one method per ioctl, values in and out.

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use v4l::v4l_sys::*;
use v4l::v4l2::{self, vidioc};

use super::color::{ColorFields, DriverColor};
use super::fourcc::FourCc;
use super::mapping::Mapping;
use super::negotiate::{Rate, SizeRange};

/// Most planes of a frame that are understood; the kernel allows eight.
const MAX_PLANES: usize = VIDEO_MAX_PLANES as usize;

/// The two ways a device numbers its planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A frame is one piece of memory.
    SinglePlanar,
    /// A frame is a list of planes, often of one.
    MultiPlanar,
}

impl Kind {
    fn buffer_type(self) -> u32 {
        match self {
            Self::SinglePlanar => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE,
            Self::MultiPlanar => v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE,
        }
    }
}

/// What a device is.
#[derive(Clone, Debug)]
pub(super) struct Capabilities {
    pub(super) driver: String,
    pub(super) card: String,
    pub(super) bus: String,
    flags: u32,
}

impl Capabilities {
    /// How the device streams captured pictures; `None` if it does not.
    pub(super) fn kind(&self) -> Option<Kind> {
        let has = |flag| self.flags & flag != 0;
        match (has(V4L2_CAP_VIDEO_CAPTURE), has(V4L2_CAP_VIDEO_CAPTURE_MPLANE)) {
            _ if !has(V4L2_CAP_STREAMING) => None,
            (true, _) => Some(Kind::SinglePlanar),
            (false, true) => Some(Kind::MultiPlanar),
            (false, false) => None,
        }
    }
}

/// A format in the device's list.
#[derive(Clone, Debug)]
pub(super) struct FormatDescription {
    pub(super) fourcc: FourCc,
    pub(super) description: String,
}

/// The format in force.
#[derive(Clone, Debug)]
pub(super) struct Format {
    pub(super) fourcc: FourCc,
    pub(super) size: (u32, u32),
    pub(super) color: DriverColor,
    /// Bytes from line to line, for each plane.
    pub(super) strides: Vec<u32>,
}

/// Where a plane of a buffer can be mapped.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaneMemory {
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// A filled buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filled {
    pub(super) index: u32,
    pub(super) sequence: u32,
    /// Whether the driver says that the content is damaged.
    pub(super) is_damaged: bool,
    /// Time of capture on the monotonic clock, if it is on that clock.
    pub(super) monotonic: Option<Duration>,
    /// Bytes of picture in each plane.
    pub(super) used: [PlaneUse; MAX_PLANES],
}

/// The part of a plane that holds picture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PlaneUse {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// What a wait for a frame ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ready {
    /// A buffer is filled.
    Yes,
    /// Something is wrong; taking a buffer says what.
    Trouble,
    /// The time is over.
    No,
}

/// An open device.
#[derive(Debug)]
pub(super) struct Device {
    fd: OwnedFd,
    path: PathBuf,
}

/// A structure that the kernel reads and writes as a whole.
///
/// # Safety
/// All bytes zero must be a value, and it must hold no pointer that the kernel follows.
pub(super) unsafe trait Plain: Sized {
    fn zeroed() -> Self {
        // SAFETY: all bytes zero are a value, as the trait demands.
        unsafe { mem::zeroed() }
    }
}

// SAFETY: these are C structures of integers, integer arrays and unions of such.
unsafe impl Plain for v4l2_capability {}
// SAFETY: as above.
unsafe impl Plain for v4l2_fmtdesc {}
// SAFETY: as above.
unsafe impl Plain for v4l2_frmsizeenum {}
// SAFETY: as above.
unsafe impl Plain for v4l2_frmivalenum {}
// SAFETY: as above.
unsafe impl Plain for v4l2_requestbuffers {}
// SAFETY: as above.
unsafe impl Plain for v4l2_streamparm {}
// SAFETY: as above.
unsafe impl Plain for v4l2_plane {}
// SAFETY: as above but for overlay windows, whose type is never set in this file.
unsafe impl Plain for v4l2_format {}
// SAFETY: as above.
unsafe impl Plain for v4l2_exportbuffer {}
// SAFETY: an integer.
unsafe impl Plain for u32 {}

impl Device {
    /// Opens a device without blocking on it later.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file: File =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { fd: file.into(), path: path.to_owned() })
    }

    /// The path it was opened by.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// VIDIOC_QUERYCAP
    pub(super) fn capabilities(&self) -> io::Result<Capabilities> {
        let mut caps = v4l2_capability::zeroed();
        self.ioctl(vidioc::VIDIOC_QUERYCAP, &mut caps)?;
        let has_own = caps.capabilities & V4L2_CAP_DEVICE_CAPS != 0;
        Ok(Capabilities {
            driver: text(&caps.driver),
            card: text(&caps.card),
            bus: text(&caps.bus_info),
            flags: if has_own { caps.device_caps } else { caps.capabilities },
        })
    }

    /// VIDIOC_ENUM_FMT; `None` behind the last.
    pub(super) fn format_at(&self, kind: Kind, index: u32) -> io::Result<Option<FormatDescription>> {
        let mut format = v4l2_fmtdesc { index, type_: kind.buffer_type(), ..Plain::zeroed() };
        let found = self.enumerate(vidioc::VIDIOC_ENUM_FMT, &mut format)?;
        Ok(found.then(|| FormatDescription {
            fourcc: FourCc::from_code(format.pixelformat),
            description: text(&format.description),
        }))
    }

    /// VIDIOC_ENUM_FRAMESIZES; `None` behind the last.
    pub(super) fn size_at(&self, fourcc: FourCc, index: u32) -> io::Result<Option<SizeRange>> {
        let mut size = v4l2_frmsizeenum { index, pixel_format: fourcc.code(), ..Plain::zeroed() };
        if !self.enumerate(vidioc::VIDIOC_ENUM_FRAMESIZES, &mut size)? {
            return Ok(None);
        }
        if size.type_ == v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
            // SAFETY: the type says that this member was written; both are integers only.
            let one = unsafe { size.__bindgen_anon_1.discrete };
            return Ok(Some(SizeRange::one(one.width, one.height)));
        }
        // A range is the only entry of its list.
        if index > 0 {
            return Ok(None);
        }
        // SAFETY: the type says that this member was written; both are integers only.
        let range = unsafe { size.__bindgen_anon_1.stepwise };
        Ok(Some(SizeRange {
            least: (range.min_width, range.min_height),
            most: (range.max_width, range.max_height),
            step: (range.step_width, range.step_height),
        }))
    }

    /// VIDIOC_ENUM_FRAMEINTERVALS; `None` behind the last. Of a range both ends and 30 frames per
    /// second, if it is inside, are listed.
    pub(super) fn rate_at(
        &self,
        fourcc: FourCc,
        (width, height): (u32, u32),
        index: u32,
    ) -> io::Result<Option<Vec<Rate>>> {
        let mut interval =
            v4l2_frmivalenum { index, pixel_format: fourcc.code(), width, height, ..Plain::zeroed() };
        if !self.enumerate(vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut interval)? {
            return Ok(None);
        }
        if interval.type_ == v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
            // SAFETY: the type says that this member was written; both are integers only.
            return Ok(Some(vec![rate(unsafe { interval.__bindgen_anon_1.discrete })]));
        }
        if index > 0 {
            return Ok(None);
        }
        // SAFETY: the type says that this member was written; both are integers only.
        let range = unsafe { interval.__bindgen_anon_1.stepwise };
        let (fastest, slowest) = (rate(range.min), rate(range.max));
        let usual = Rate { numerator: 1, denominator: 30 };
        let is_inside = (slowest.fps()..=fastest.fps()).contains(&usual.fps());
        Ok(Some(if is_inside { vec![fastest, usual, slowest] } else { vec![fastest, slowest] }))
    }

    /// VIDIOC_S_FMT: asks for a format and returns what the driver made of it.
    pub(super) fn set_format(&self, kind: Kind, fourcc: FourCc, size: (u32, u32)) -> io::Result<Format> {
        let mut format = v4l2_format { type_: kind.buffer_type(), ..Plain::zeroed() };
        let field = v4l2_field_V4L2_FIELD_NONE;
        match kind {
            Kind::SinglePlanar => {
                let zeroed = v4l2_format::zeroed();
                // SAFETY: all members of the union are integers but for the overlay window, and all
                // bytes are zero.
                let pix = unsafe { zeroed.fmt.pix };
                let (width, height, pixelformat) = (size.0, size.1, fourcc.code());
                format.fmt.pix = v4l2_pix_format { width, height, pixelformat, field, ..pix };
            }
            Kind::MultiPlanar => {
                let zeroed = v4l2_format::zeroed();
                // SAFETY: as above.
                let pix_mp = unsafe { zeroed.fmt.pix_mp };
                let (width, height, pixelformat) = (size.0, size.1, fourcc.code());
                format.fmt.pix_mp = v4l2_pix_format_mplane { width, height, pixelformat, field, ..pix_mp };
            }
        }
        self.ioctl(vidioc::VIDIOC_S_FMT, &mut format)?;
        Ok(read_format(kind, &format))
    }

    /// VIDIOC_S_PARM: asks for a rate and returns the one in force, if the driver knows rates.
    pub(super) fn set_rate(&self, kind: Kind, wanted: Rate) -> io::Result<Option<Rate>> {
        let mut parameters = v4l2_streamparm { type_: kind.buffer_type(), ..Plain::zeroed() };
        // SAFETY: the type is a capture type; the union holds integers only and all bytes are zero.
        let mut capture = unsafe { parameters.parm.capture };
        capture.timeperframe = v4l2_fract { numerator: wanted.numerator, denominator: wanted.denominator };
        parameters.parm.capture = capture;
        match self.ioctl(vidioc::VIDIOC_S_PARM, &mut parameters) {
            // SAFETY: the type is a capture type, so this member was written.
            Ok(()) => Ok(Some(rate(unsafe { parameters.parm.capture }.timeperframe))),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// VIDIOC_REQBUFS: asks for buffers to be mapped and returns how many there are.
    pub(super) fn request_buffers(&self, kind: Kind, count: u32) -> io::Result<u32> {
        let memory = v4l2_memory_V4L2_MEMORY_MMAP;
        let mut request = v4l2_requestbuffers { count, type_: kind.buffer_type(), memory, ..Plain::zeroed() };
        self.ioctl(vidioc::VIDIOC_REQBUFS, &mut request)?;
        Ok(request.count)
    }

    /// VIDIOC_QUERYBUF: where the planes of a buffer are.
    pub(super) fn query_buffer(&self, kind: Kind, index: u32) -> io::Result<Vec<PlaneMemory>> {
        let mut buffer = Buffer::new(kind, index);
        self.buffer_ioctl(vidioc::VIDIOC_QUERYBUF, &mut buffer)?;
        Ok(match kind {
            Kind::SinglePlanar => {
                // SAFETY: the memory is of the mapped type, so this member was written.
                let offset = unsafe { buffer.head.m.offset };
                vec![PlaneMemory { offset, length: buffer.head.length }]
            }
            Kind::MultiPlanar => {
                let planes = &buffer.planes[..MAX_PLANES.min(buffer.head.length as usize)];
                let memory = |plane: &v4l2_plane| PlaneMemory {
                    // SAFETY: the memory is of the mapped type, so this member was written.
                    offset: unsafe { plane.m.mem_offset },
                    length: plane.length,
                };
                planes.iter().map(memory).collect()
            }
        })
    }

    /// VIDIOC_QBUF: gives a buffer to the driver to fill.
    pub(super) fn queue(&self, kind: Kind, index: u32) -> io::Result<()> {
        self.buffer_ioctl(vidioc::VIDIOC_QBUF, &mut Buffer::new(kind, index))
    }

    /// VIDIOC_DQBUF: takes a filled buffer; `None` if there is none yet.
    pub(super) fn dequeue(&self, kind: Kind) -> io::Result<Option<Filled>> {
        let mut buffer = Buffer::new(kind, 0);
        match self.buffer_ioctl(vidioc::VIDIOC_DQBUF, &mut buffer) {
            Ok(()) => Ok(Some(buffer.filled(kind))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// VIDIOC_STREAMON
    pub(super) fn stream_on(&self, kind: Kind) -> io::Result<()> {
        self.ioctl(vidioc::VIDIOC_STREAMON, &mut kind.buffer_type())
    }

    /// VIDIOC_STREAMOFF
    pub(super) fn stream_off(&self, kind: Kind) -> io::Result<()> {
        self.ioctl(vidioc::VIDIOC_STREAMOFF, &mut kind.buffer_type())
    }

    /// Waits until a buffer is filled or something is wrong, at most `wait`.
    pub(super) fn poll(&self, wait: Duration) -> io::Result<Ready> {
        let mut entry = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one valid entry and the count is one.
        match unsafe { libc::poll(&mut entry, 1, millis) } {
            0 => Ok(Ready::No),
            1.. if entry.revents & (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0 => {
                Ok(Ready::Trouble)
            }
            1.. => Ok(Ready::Yes),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(Ready::No),
                error => Err(error),
            },
        }
    }

    /// Maps a plane of a buffer.
    pub(super) fn map(&self, plane: PlaneMemory) -> io::Result<Mapping> {
        Mapping::new(&self.fd, plane)
    }

    /// VIDIOC_EXPBUF: a descriptor of a plane of a buffer that other devices can read from, a GPU
    /// for one. The memory lives as long as the descriptor.
    pub(super) fn export(&self, kind: Kind, index: u32, plane: u32) -> io::Result<OwnedFd> {
        let type_ = kind.buffer_type();
        let flags = (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned();
        let mut export = v4l2_exportbuffer { type_, index, plane, flags, ..Plain::zeroed() };
        self.ioctl(vidioc::VIDIOC_EXPBUF, &mut export)?;
        // SAFETY: the kernel has just made the descriptor for this call.
        Ok(unsafe { OwnedFd::from_raw_fd(export.fd) })
    }

    /// One entry of a list; `false` behind the last, or if the driver has no such list.
    fn enumerate<T: Plain>(&self, request: vidioc::_IOC_TYPE, entry: &mut T) -> io::Result<bool> {
        match self.ioctl(request, entry) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOTTY)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn ioctl<T: Plain>(&self, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
        assert_eq!(request_bytes(request), size_of::<T>(), "the request is for another structure");
        // SAFETY: the kernel reads and writes as many bytes as the request says, which is the size
        // of the argument, and follows no pointer in it.
        unsafe { self.raw_ioctl(request, (argument as *mut T).cast()) }
    }

    fn buffer_ioctl(&self, request: vidioc::_IOC_TYPE, buffer: &mut Buffer) -> io::Result<()> {
        assert_eq!(request_bytes(request), size_of::<v4l2_buffer>(), "a request for a buffer");
        if buffer.head.type_ == Kind::MultiPlanar.buffer_type() {
            buffer.head.m.planes = buffer.planes.as_mut_ptr();
            buffer.head.length = MAX_PLANES as u32;
        }
        // SAFETY: the size is right; the only pointer followed is that to the planes of multi-planar
        // buffers, which was just set, together with their number, and outlives the call.
        unsafe { self.raw_ioctl(request, (&raw mut buffer.head).cast()) }
    }

    /// # Safety
    /// `argument` must be what `request` takes.
    unsafe fn raw_ioctl(&self, request: vidioc::_IOC_TYPE, argument: *mut c_void) -> io::Result<()> {
        loop {
            // SAFETY: the caller vouches for the argument; the descriptor is open.
            match unsafe { v4l2::ioctl(self.fd.as_raw_fd(), request, argument) } {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }
}

/// Bytes of the argument, which are part of the number of a request.
fn request_bytes(request: vidioc::_IOC_TYPE) -> usize {
    (request as usize >> 16) & 0x3fff
}

/// A buffer in a request, with room for its planes.
struct Buffer {
    head: v4l2_buffer,
    planes: [v4l2_plane; MAX_PLANES],
}

impl Buffer {
    fn new(kind: Kind, index: u32) -> Self {
        // SAFETY: a C structure of integers and pointers, which may be null.
        let zeroed: v4l2_buffer = unsafe { mem::zeroed() };
        let memory = v4l2_memory_V4L2_MEMORY_MMAP;
        let head = v4l2_buffer { index, type_: kind.buffer_type(), memory, ..zeroed };
        Self { head, planes: [v4l2_plane::zeroed(); MAX_PLANES] }
    }

    fn filled(&self, kind: Kind) -> Filled {
        let mut used = [PlaneUse::default(); MAX_PLANES];
        match kind {
            Kind::SinglePlanar => used[0].end = self.head.bytesused,
            Kind::MultiPlanar => {
                for (used, plane) in used.iter_mut().zip(&self.planes) {
                    *used = PlaneUse { start: plane.data_offset, end: plane.bytesused };
                }
            }
        }
        let clock = self.head.flags & V4L2_BUF_FLAG_TIMESTAMP_MASK;
        let time = self.head.timestamp;
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let micros = u64::try_from(time.tv_usec).unwrap_or(0).min(999_999);
        let since_boot = Duration::from_secs(seconds) + Duration::from_micros(micros);
        let is_usable = clock == V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC && since_boot > Duration::ZERO;
        Filled {
            index: self.head.index,
            sequence: self.head.sequence,
            is_damaged: self.head.flags & V4L2_BUF_FLAG_ERROR != 0,
            monotonic: is_usable.then_some(since_boot),
            used,
        }
    }
}

fn read_format(kind: Kind, format: &v4l2_format) -> Format {
    match kind {
        Kind::SinglePlanar => {
            // SAFETY: the type of the format says that this member was written.
            let pix = unsafe { format.fmt.pix };
            // SAFETY: both members are one integer.
            let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
            // Without the magic number the driver knows nothing of the fields behind it.
            let is_extended = pix.priv_ == V4L2_PIX_FMT_PRIV_MAGIC;
            let extended = |value: u32| if is_extended { value } else { 0 };
            let color = ColorFields {
                colorspace: pix.colorspace,
                encoding: extended(encoding),
                quantization: extended(pix.quantization),
                transfer: extended(pix.xfer_func),
            };
            Format {
                fourcc: FourCc::from_code(pix.pixelformat),
                size: (pix.width, pix.height),
                color: DriverColor::new(color),
                strides: vec![pix.bytesperline],
            }
        }
        Kind::MultiPlanar => {
            // SAFETY: the type of the format says that this member was written.
            let pix = unsafe { format.fmt.pix_mp };
            // SAFETY: both members are one integer.
            let encoding = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
            let planes = MAX_PLANES.min(usize::from(pix.num_planes));
            // The structure is packed: its fields are copied out before they are looked at.
            let (plane_formats, code) = (pix.plane_fmt, pix.pixelformat);
            let color = ColorFields {
                colorspace: pix.colorspace,
                encoding: encoding.into(),
                quantization: pix.quantization.into(),
                transfer: pix.xfer_func.into(),
            };
            Format {
                fourcc: FourCc::from_code(code),
                size: (pix.width, pix.height),
                color: DriverColor::new(color),
                strides: plane_formats[..planes].iter().map(|plane| plane.bytesperline).collect(),
            }
        }
    }
}

fn rate(interval: v4l2_fract) -> Rate {
    Rate { numerator: interval.numerator, denominator: interval.denominator }
}

/// Text up to the first zero byte.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
