//! The arena of keys and values.

use std::marker::PhantomData;

use half::f16;

use crate::cpu::buffer::Buffer;
use crate::cpu::isa::Isa;
use crate::cpu::lanes::{Kernel, Lanes, Stored, WIDEST, dispatch};
use crate::cpu::threads::{Base, Pool};
use crate::device::{DeviceError, KvDtype, KvShape, PAGE, PageId, Slot};
use crate::tensor::HostTensor;

/// Numbers stored by a call below which threads are not worth waking.
const LEAST: usize = 32 * 1024;

/// Keys and values of all layers in pages.
///
/// The order is `[page][layer][kv head]`, and of each head a tile: keys `[head_dim][PAGE]`, then
/// values `[PAGE][stride]`, `stride` being `head_dim` padded with zeros to whole vectors. A tile has
/// whole cache lines. All bits 0 is the number 0 in either type.
#[derive(Debug)]
pub struct Kv {
    shape: KvShape,
    pages: usize,
    dtype: KvDtype,
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
}

/// Numbers from value to value, those of a head being `dim`.
pub(super) fn stride(dim: usize) -> usize {
    dim.next_multiple_of(WIDEST)
}

fn size(dtype: KvDtype) -> usize {
    match dtype {
        KvDtype::F32 => size_of::<f32>(),
        KvDtype::F16 => size_of::<f16>(),
    }
}

impl Kv {
    pub(in crate::cpu) fn new(shape: KvShape, pages: usize, dtype: KvDtype) -> Result<Self, DeviceError> {
        let width = shape.head_dim.checked_add(WIDEST).and_then(|dim| dim.checked_mul(2));
        let possible = [pages, shape.layers, shape.kv_heads, PAGE, size(dtype)]
            .into_iter()
            .try_fold(width.unwrap_or(usize::MAX), |product, factor| product.checked_mul(factor));
        if possible.is_none() {
            return Err(DeviceError::OutOfMemory { what: "the KV cache", bytes: usize::MAX });
        }
        let tile = PAGE * (shape.head_dim + stride(shape.head_dim)) * size(dtype);
        let data = Buffer::zeroed(pages * shape.layers * shape.kv_heads * tile, "the KV cache")?;
        Ok(Self { shape, pages, dtype, data })
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

    /// Numbers of a head in one page.
    fn tile(&self) -> usize {
        PAGE * (self.shape.head_dim + stride(self.shape.head_dim))
    }

    /// The tiles of a head. `E` is the type of the arena's numbers.
    pub(super) fn head<E>(&self, layer: usize, head: usize) -> Head<'_, E> {
        assert_eq!(size_of::<E>(), size(self.dtype), "type of the arena's numbers");
        let KvShape { layers, kv_heads, head_dim } = self.shape;
        assert!(layer < layers && head < kv_heads, "layer {layer}, head {head}");
        let base = self.data.as_ptr().cast::<E>().wrapping_add((layer * kv_heads + head) * self.tile());
        // SAFETY: the arena, which is borrowed, has a tile for each page, layer and head.
        unsafe { Head::new(base, layers * kv_heads * self.tile(), self.pages, head_dim) }
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
        let (dtype, tile) = (self.dtype, self.tile());
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
            }
        };
        if 2 * shape.0 * shape.1 < LEAST {
            (0..kv_heads).for_each(store);
        } else {
            pool.run(kv_heads, &store);
        }
    }

    pub(in crate::cpu) fn copy_page(&mut self, from: PageId, to: PageId) {
        let (from, to) = (from.0 as usize, to.0 as usize);
        assert!(from < self.pages && to < self.pages, "pages {from} and {to} of {}", self.pages);
        let len = self.data.len() / self.pages;
        self.data.copy_within(from * len..(from + 1) * len, to * len);
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

impl<E: Stored> Kernel for Append<'_, E> {
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
