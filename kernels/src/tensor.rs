//! Activations in host memory.

use crate::device::DeviceError;

/// An f32 matrix in row order with a fixed width and room for a fixed number of rows.
///
/// Scratch buffers are made once for the largest batch; [`HostTensor::set_rows`] then chooses how
/// many rows are in use without allocating.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostTensor {
    data: Vec<f32>,
    rows: usize,
    cols: usize,
    capacity: usize,
}

impl HostTensor {
    /// A zeroed tensor with all its `capacity` rows in use.
    pub fn zeros(capacity: usize, cols: usize) -> Self {
        Self { data: vec![0.0; capacity * cols], rows: capacity, cols, capacity }
    }

    /// [`HostTensor::zeros`] for a size that may not fit into memory.
    pub fn try_zeros(capacity: usize, cols: usize) -> Result<Self, DeviceError> {
        let len = capacity.checked_mul(cols);
        let bytes = len.and_then(|len| len.checked_mul(size_of::<f32>())).unwrap_or(usize::MAX);
        let mut data = Vec::new();
        match len {
            Some(len) if data.try_reserve_exact(len).is_ok() => data.resize(len, 0.0),
            _ => return Err(DeviceError::OutOfMemory { what: "a tensor", bytes }),
        }
        Ok(Self { data, rows: capacity, cols, capacity })
    }

    /// A tensor of `values` in rows of `cols`. The length must be a multiple of `cols`.
    pub fn from_rows(values: &[f32], cols: usize) -> Self {
        assert!(cols > 0 && values.len().is_multiple_of(cols), "values do not fill rows of {cols}");
        let rows = values.len() / cols;
        Self { data: values.to_vec(), rows, cols, capacity: rows }
    }

    /// Rows in use.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Numbers in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows there is room for.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Chooses how many rows are in use, at most the capacity. Contents stay as they were.
    pub fn set_rows(&mut self, rows: usize) {
        assert!(rows <= self.capacity, "{rows} rows asked of a tensor with room for {}", self.capacity);
        self.rows = rows;
    }

    /// The rows in use, row order.
    pub fn data(&self) -> &[f32] {
        &self.data[..self.rows * self.cols]
    }

    /// The rows in use, row order.
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data[..self.rows * self.cols]
    }

    /// Row `index`.
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data()[index * self.cols..][..self.cols]
    }

    /// Row `index`.
    pub fn row_mut(&mut self, index: usize) -> &mut [f32] {
        let cols = self.cols;
        &mut self.data_mut()[index * cols..][..cols]
    }
}
