//! The arena of keys and values.

use std::marker::PhantomData;

use half::f16;

use crate::cpu::buffer::Buffer;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::{Kernel, Lanes, Rounded, WIDEST, dispatch};
use crate::cpu::threads::{Base, Pool};
use crate::device::{DeviceError, KV_BLOCK, KvDtype, KvShape, PAGE, PageId, Slot};
use crate::tensor::HostTensor;

/// Numbers stored by a call below which threads are not worth waking. A row of keys is scattered, each
/// number to a cache line of its own.
const LEAST: usize = 4 * 1024;

/// Bytes of a cache line.
const LINE: usize = 64;

/// Bytes of a page that one thread copies at a time.
const COPIED: usize = 256 * 1024;

/// Keys and values of all layers in pages.
///
/// The order is `[page][layer][kv head]`, and of each head a tile: keys `[head_dim][PAGE]`, then
/// values `[PAGE][stride]`, `stride` being `head_dim` padded with zeros to whole vectors. Behind
/// integers follow their f16 scales, those of keys and those of values, each `[block][PAGE]`. A tile
/// has whole cache lines. All bits 0 is the number 0 in any type.
#[derive(Debug)]
pub struct Kv {
    shape: KvShape,
    pages: usize,
    dtype: KvDtype,
    /// Numbers of a head in one page; bytes where they are integers.
    tile: usize,
    data: Buffer,
}

/// Tiles of one head of one layer.
pub(super) struct Head<'a, E> {
    /// Tile of page 0.
    base: *const E,
    /// Numbers from page to page.
    page: usize,
    pages: usize,
    dim: usize,
    arena: PhantomData<&'a [E]>,
}

impl<E> Clone for Head<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Head<'_, E> {}

impl<E> Head<'_, E> {
    /// Tiles of heads of `dim` numbers; that of page 0 starts at `base`, others `page` numbers apart.
    ///
    /// # Safety
    /// As long as this lives, `pages` tiles can be read there.
    pub(super) unsafe fn new(base: *const E, page: usize, pages: usize, dim: usize) -> Self {
        Self { base, page, pages, dim, arena: PhantomData }
    }

    /// Numbers from value to value.
    pub(super) fn stride(&self) -> usize {
        stride(self.dim)
    }

    /// Address of a page's keys.
    #[inline(always)]
    pub(super) fn keys(&self, page: PageId) -> *const E {
        let page = page.0 as usize;
        assert!(page < self.pages, "page {page} of {}", self.pages);
        // SAFETY: every page of the arena has a tile of this head.
        unsafe { self.base.add(page * self.page) }
    }

    /// Address of a page's values.
    #[inline(always)]
    pub(super) fn values(&self, page: PageId) -> *const E {
        // SAFETY: the values follow the keys inside the tile.
        unsafe { self.keys(page).add(PAGE * self.dim) }
    }

    /// Address of the scales of a page's keys, where `E` has scales.
    #[inline(always)]
    pub(super) fn key_scales(&self, page: PageId) -> *const f16 {
        self.values(page).wrapping_add(PAGE * self.stride()).cast()
    }

    /// Address of the scales of a page's values, where `E` has scales.
    #[inline(always)]
    pub(super) fn value_scales(&self, page: PageId) -> *const f16 {
        self.key_scales(page).wrapping_add(self.dim.div_ceil(KV_BLOCK) * PAGE)
    }
}

/// Numbers from value to value, those of a head being `dim`.
pub(super) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(WIDEST)
}

fn size(dtype: KvDtype) -> usize {
    match dtype {
        KvDtype::F32 => size_of::<f32>(),
        KvDtype::F16 => size_of::<f16>(),
        KvDtype::Q8 => size_of::<i8>(),
    }
}

/// Numbers of a head of `dim` in one page, the scales of integers counted as integers. Nothing if
/// there is no such number.
fn tile(dim: usize, dtype: KvDtype) -> Option<usize> {
    let numbers = dim.checked_next_multiple_of(WIDEST)?.checked_add(dim)?.checked_mul(PAGE)?;
    if dtype != KvDtype::Q8 {
        return Some(numbers);
    }
    let scales = 2 * dim.div_ceil(KV_BLOCK) * PAGE;
    numbers.checked_add(scales * size_of::<f16>())?.checked_next_multiple_of(LINE)
}

impl Kv {
    pub(in crate::cpu) fn new(shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self, DeviceError> {
        const WHAT: &str = "the KV cache";
        let impossible = DeviceError::OutOfMemory { what: WHAT, bytes: usize::MAX };
        let tile = tile(shape.head_dim, dtype).ok_or(impossible.clone())?;
        let factors = [pages, shape.layers, shape.kv_heads, size(dtype)];
        let bytes = factors.into_iter().try_fold(tile, |product, factor| product.checked_mul(factor));
        let data = Buffer::zeroed(bytes.ok_or(impossible)?, WHAT)?;
        Ok(Self { shape, pages, dtype, tile, data })
    }

    pub(in crate::cpu) fn bytes(&self) -> usize {
        self.data.len()
    }

    pub(super) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(super) fn dtype(&self) -> KvDtype {
        self.dtype
    }

    /// The tiles of a head. `E` is the type of the arena's numbers.
    pub(super) fn head<E>(&self, layer: usize, head: usize) -> Head<'_, E> {
        assert_eq!(size_of::<E>(), size(self.dtype), "type of the arena's numbers");
        let KvShape { layers, kv_heads, head_dim } = self.shape;
        assert!(layer < layers && head < kv_heads, "layer {layer}, head {head}");
        let base = self.data.as_ptr().cast::<E>().wrapping_add((layer * kv_heads + head) * self.tile);
        // SAFETY: the arena, which is borrowed, has a tile for each page, layer and head.
        unsafe { Head::new(base, layers * kv_heads * self.tile, self.pages, head_dim) }
    }

    pub(in crate::cpu) fn append(
        &mut self,
        (isa, pool): (Isa, &Pool),
        layer: usize,
        [k, v]: [&HostTensor; 2],
        slots: &[Slot],
    ) {
        let KvShape { layers, kv_heads, head_dim } = self.shape;
        let shape = (slots.len(), kv_heads * head_dim);
        assert!((k.rows(), k.cols()) == shape && (v.rows(), v.cols()) == shape, "one row for each slot");
        assert!(layer < layers, "layer {layer} of {layers}");
        for slot in slots {
            let inside = (slot.page.0 as usize) < self.pages && (slot.offset as usize) < PAGE;
            assert!(inside, "{slot:?} is not in an arena of {} pages", self.pages);
        }
        let (dtype, tile) = (self.dtype, self.tile);
        let data = Base(self.data.as_mut_ptr());
        let store = |head: usize| {
            let first = (layer * kv_heads + head) * tile;
            let rows = Rows { k, v, slots, head, dim: head_dim, page: layers * kv_heads * tile };
            match dtype {
                KvDtype::F32 => {
                    dispatch(isa, Append { rows, tiles: data.at(0).cast::<f32>().wrapping_add(first) });
                }
                KvDtype::F16 => {
                    dispatch(isa, Append { rows, tiles: data.at(0).cast::<f16>().wrapping_add(first) });
                }
                KvDtype::Q8 => {
                    dispatch(isa, AppendBlocks { rows, tiles: data.at(0).cast::<i8>().wrapping_add(first) });
                }
            }
        };
        if 2 * shape.0 * shape.1 < LEAST {
            (0..kv_heads).for_each(store);
        } else {
            pool.run(kv_heads, &store);
        }
    }

    pub(in crate::cpu) fn copy_page(&mut self, pool: &Pool, from: PageId, to: PageId) {
        let (from, to) = (from.0 as usize, to.0 as usize);
        assert!(from < self.pages && to < self.pages, "pages {from} and {to} of {}", self.pages);
        if from == to {
            return;
        }
        let len = self.page_bytes();
        let data = Base(self.data.as_mut_ptr());
        pool.run(len.div_ceil(COPIED), &|index| {
            let first = index * COPIED;
            // SAFETY: both pages lie in the arena, which is borrowed until `run` returns, and are not
            // the same; each part of them is copied by one task.
            unsafe {
                let (from, to) = (data.at(from * len + first), data.at(to * len + first));
                to.copy_from_nonoverlapping(from, COPIED.min(len - first));
            }
        });
    }

    pub(in crate::cpu) fn forget(&mut self, pages: &[PageId]) {
        let len = self.page_bytes();
        // Neighbours go together: the end of one and the beginning of the next may share a page of the system.
        for run in pages.chunk_by(|page, next| next.0.checked_sub(1) == Some(page.0)) {
            let (first, last) = (run[0].0 as usize, run[run.len() - 1].0 as usize);
            assert!(last < self.pages, "page {last} of {}", self.pages);
            self.data.forget(first * len..(last + 1) * len);
        }
    }

    pub(in crate::cpu) fn page_bytes(&self) -> usize {
        self.data.len() / self.pages.max(1)
    }

    pub(in crate::cpu) fn page(&self, page: PageId) -> &[u8] {
        let page = page.0 as usize;
        assert!(page < self.pages, "page {page} of {}", self.pages);
        &self.data[page * self.page_bytes()..][..self.page_bytes()]
    }

    pub(in crate::cpu) fn page_mut(&mut self, page: PageId) -> &mut [u8] {
        let (page, len) = (page.0 as usize, self.page_bytes());
        assert!(page < self.pages, "page {page} of {}", self.pages);
        &mut self.data[page * len..][..len]
    }
}

/// New keys and values of one head.
struct Rows<'a> {
    k: &'a HostTensor,
    v: &'a HostTensor,
    /// One for each row, all inside the arena.
    slots: &'a [Slot],
    head: usize,
    dim: usize,
    /// Numbers from page to page.
    page: usize,
}

/// Stores them.
struct Append<'a, E> {
    rows: Rows<'a>,
    /// The head's tile in page 0. No other thread touches tiles of this head.
    tiles: *mut E,
}

impl<E: Rounded> Kernel for Append<'_, E> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Rows { k, v, slots, head, dim, page } = self.rows;
        let mut vector = [E::default(); WIDEST];
        for (r, slot) in slots.iter().enumerate() {
            let (page, offset) = (page * slot.page.0 as usize, slot.offset as usize);
            let key = &k.row(r)[head * dim..][..dim];
            let value = &v.row(r)[head * dim..][..dim];
            for d in (0..dim).step_by(L::LANES) {
                let n = L::LANES.min(dim - d);
                // SAFETY: `append` checked the slot, so that the tile lies inside the arena, and
                // numbers `d .. d + n` inside the key and the value. Their tile rows are padded to
                // whole vectors.
                unsafe {
                    E::store(lanes, lanes.load_first(key.as_ptr().add(d), n), vector.as_mut_ptr());
                    let column = self.tiles.add(page + d * PAGE + offset);
                    for (i, &number) in vector[..n].iter().enumerate() {
                        column.add(i * PAGE).write(number);
                    }
                    let line = self.tiles.add(page + PAGE * dim + offset * stride(dim) + d);
                    E::store(lanes, lanes.load_first(value.as_ptr().add(d), n), line);
                }
            }
        }
    }
}

/// Stores them as integers with scales.
struct AppendBlocks<'a> {
    rows: Rows<'a>,
    /// The head's tile in page 0. No other thread touches tiles of this head.
    tiles: *mut i8,
}

impl Kernel for AppendBlocks<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Rows { k, v, slots, head, dim, page } = self.rows;
        let blocks = dim.div_ceil(KV_BLOCK);
        for (r, slot) in slots.iter().enumerate() {
            let offset = slot.offset as usize;
            let key = &k.row(r)[head * dim..][..dim];
            let value = &v.row(r)[head * dim..][..dim];
            let keys = self.tiles.wrapping_add(page * slot.page.0 as usize);
            let values = keys.wrapping_add(PAGE * dim);
            let key_scales = values.wrapping_add(PAGE * stride(dim)).cast::<f16>();
            let value_scales = key_scales.wrapping_add(blocks * PAGE);
            for (b, (key, value)) in key.chunks(KV_BLOCK).zip(value.chunks(KV_BLOCK)).enumerate() {
                let (key_scale, key_integers) = quantize(lanes, key);
                let (value_scale, value_integers) = quantize(lanes, value);
                // SAFETY: `append` checked the slot, so that the tile lies inside the arena: `dim`
                // lines of keys, `PAGE` lines of values, then `blocks` lines of scales for each.
                unsafe {
                    key_scales.add(b * PAGE + offset).write(key_scale);
                    value_scales.add(b * PAGE + offset).write(value_scale);
                    for (i, &integer) in key_integers[..key.len()].iter().enumerate() {
                        keys.add((b * KV_BLOCK + i) * PAGE + offset).write(integer);
                    }
                    let line = values.add(offset * stride(dim) + b * KV_BLOCK);
                    line.copy_from_nonoverlapping(value_integers.as_ptr(), value.len());
                }
            }
        }
    }
}

/// Up to [`KV_BLOCK`] numbers as integers with one scale, in the way of
/// [`crate::device::Device::kv_append`].
#[inline(always)]
fn quantize<L: Lanes>(lanes: L, numbers: &[f32]) -> (f16, [i8; KV_BLOCK]) {
    let zero = lanes.splat(0.0);
    // A NaN may get lost in a maximum, but not in a sum.
    let (mut largest, mut poison) = (zero, zero);
    // No vector is narrower than eight.
    let mut vectors = [zero; KV_BLOCK / 8];
    let count = numbers.len().div_ceil(L::LANES);
    for (i, vector) in vectors[..count].iter_mut().enumerate() {
        let numbers = &numbers[i * L::LANES..];
        // SAFETY: no more numbers are loaded than the slice has.
        *vector = unsafe { lanes.load_first(numbers.as_ptr(), numbers.len().min(L::LANES)) };
        largest = lanes.max(lanes.max(*vector, lanes.sub(zero, *vector)), largest);
        poison = lanes.fma(*vector, zero, poison);
    }
    let scale = f16::from_f32(lanes.largest(largest) / 127.0);
    let mut integers = [0; KV_BLOCK];
    if lanes.sum(poison).is_nan() || scale.is_infinite() {
        return (f16::NAN, integers);
    }
    if scale == f16::ZERO {
        return (scale, integers);
    }
    let mut rounded = [0.0; KV_BLOCK];
    let (d, most, least) = (lanes.splat(scale.to_f32()), lanes.splat(127.0), lanes.splat(-127.0));
    for (i, vector) in vectors[..count].iter().enumerate() {
        let quotient = lanes.max(lanes.min(lanes.div(*vector, d), most), least);
        // SAFETY: vectors fill the block, which has a whole number of them.
        unsafe { lanes.store(lanes.round(quotient), rounded.as_mut_ptr().add(i * L::LANES)) };
    }
    for (integer, rounded) in integers.iter_mut().zip(rounded) {
        *integer = rounded as i8;
    }
    (scale, integers)
}
