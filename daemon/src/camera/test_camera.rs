//! A camera that shows a world drawn by the daemon, so that there is something to see without one.
//! Its frames are a function of the number of the world, the rate and the number of the frame.

use std::time::{Duration, Instant};

use image::RgbImage;

use super::encode;
use super::frame::{Frame, PixelFormat};
use super::pace::Pace;
use super::source::{Delivery, FrameSource, SourceError, Wanted};
use super::v4l2::name_of;
use super::world::{Painter, UNSEEN, World};
use crate::wall_clock;

/// Frames per second unless asked otherwise.
const FPS: f64 = 30.0;

/// A world as a camera.
#[derive(Debug)]
pub(super) struct TestSource {
    number: u64,
    world: World,
    painter: Painter,
    picture: RgbImage,
    size: (u32, u32),
    format: PixelFormat,
    pace: Pace,
    /// Frames per second of the world's time.
    rate: f64,
    frames: u64,
}

impl TestSource {
    /// The world `UNSEEN + number`, in 640x480 at 30 frames per second unless asked otherwise.
    pub(super) fn new(number: u64, format: PixelFormat, wanted: Wanted) -> Self {
        let or = |value: u32, default| if value == 0 { default } else { value.min(4096) };
        Self {
            number,
            world: World::new(UNSEEN.wrapping_add(number)),
            painter: Painter::default(),
            picture: RgbImage::default(),
            size: (or(wanted.width, 640), or(wanted.height, 480)),
            format,
            pace: Pace::new(wanted.fps, FPS),
            rate: if wanted.fps > 0.0 { wanted.fps } else { FPS },
            frames: 0,
        }
    }

    /// Draws the next frame.
    fn draw(&mut self, frame: &mut Frame) {
        let seconds = self.frames as f64 / self.rate;
        let (width, height) = self.size;
        self.painter.draw(&self.world.at(seconds), width, height, &mut self.picture);
        encode::encode(&self.picture, self.format, frame);
        self.frames += 1;
    }
}

impl FrameSource for TestSource {
    fn describe(&self) -> String {
        let (width, height) = self.size;
        let format = name_of(self.format).map_or_else(String::new, |name| name.to_string());
        format!("test world {}, {format} {width}x{height} at {} fps", self.number, self.pace.fps())
    }

    fn interval(&self) -> Duration {
        self.pace.interval()
    }

    fn next_frame(&mut self, frame: &mut Frame, wait: Duration) -> Result<Delivery, SourceError> {
        if !self.pace.wait(wait) {
            return Ok(Delivery::Nothing);
        }
        (frame.captured, frame.captured_at) = (Instant::now(), wall_clock::now());
        self.draw(frame);
        Ok(Delivery::Frame { lost: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(number: u64, format: PixelFormat, count: u64) -> Frame {
        let mut source = TestSource::new(number, format, Wanted::default());
        source.frames = count;
        let mut frame = Frame::empty();
        source.draw(&mut frame);
        frame
    }

    #[test]
    fn a_frame_depends_on_the_world_and_its_number_only() {
        let frame = |world, count| drawn(world, PixelFormat::Yuyv, count).bytes;
        assert_eq!(frame(5, 12), frame(5, 12));
        assert_ne!(frame(5, 12), frame(5, 13));
        assert_ne!(frame(5, 12), frame(6, 12));
    }

    #[test]
    fn the_frames_follow_the_world() {
        let scene = World::new(UNSEEN + 5).at(900.0 / 30.0);
        let shown = drawn(5, PixelFormat::Rgb24, 900).rgb().unwrap();
        assert!(shown == scene.render(640, 480), "frame 900 is not second 30");
    }

    #[test]
    fn any_size_is_drawn_for_a_long_time() {
        for (width, height) in [(1, 1), (16, 16), (17, 33), (336, 336), (99, 1000), (1280, 720)] {
            let wanted = Wanted { width, height, fps: 0.0 };
            let mut source = TestSource::new(u64::MAX, PixelFormat::Yuyv, wanted);
            let mut frame = Frame::empty();
            for count in (0..3000).step_by(149).chain([u64::MAX / 8]) {
                source.frames = count;
                source.draw(&mut frame);
                assert_eq!((frame.width, frame.height), (width, height));
                frame.check().unwrap();
            }
        }
    }
}
