//! Tensors as kernels see them: memory and strides in canonical order, never owned. The only place in the project
//! where an address becomes memory that safe code may touch.

use crate::problem::DType;
use crate::scalar::{Element, Scalar};
use std::marker::PhantomData;

/// A tensor to be read: address, element type, and sizes and strides (in elements) of the six canonical indices.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    addr: usize,
    dtype: DType,
    dims: [usize; 6],
    strides: [usize; 6],
    memory: PhantomData<&'a ()>,
}

/// A tensor to be written.
pub struct TensorMut<'a>(Tensor<'a>, PhantomData<&'a mut ()>);

// SAFETY: a `Tensor` is a shared borrow of plain numbers, as the contract of `Tensor::from_raw` demands.
unsafe impl Send for Tensor<'_> {}
// SAFETY: as above.
unsafe impl Sync for Tensor<'_> {}

/// Elements between the first and the last reachable one, both included.
fn span(dims: &[usize; 6], strides: &[usize; 6]) -> usize {
    if dims.contains(&0) { 0 } else { 1 + dims.iter().zip(strides).map(|(d, s)| (d - 1) * s).sum::<usize>() }
}

impl<'a> Tensor<'a> {
    /// A tensor at an address.
    ///
    /// # Safety
    /// For the whole of `'a` every element reachable through `dims` and `strides` must be allocated memory of one
    /// object holding plain numbers of `dtype`, aligned to it, and nobody may write between the first and the last
    /// of them.
    pub unsafe fn from_raw(addr: usize, dtype: DType, dims: [usize; 6], strides: [usize; 6]) -> Tensor<'a> {
        Tensor { addr, dtype, dims, strides, memory: PhantomData }
    }

    /// A tensor that borrows a slice; panics if its elements do not fit in it.
    pub fn new<S: Element>(data: &'a [S], dims: [usize; 6], strides: [usize; 6]) -> Tensor<'a> {
        assert!(span(&dims, &strides) <= data.len(), "{dims:?} at strides {strides:?} leaves {} elements", data.len());
        Tensor { addr: data.as_ptr() as usize, dtype: S::DTYPE, dims, strides, memory: PhantomData }
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The tensor with its element type known at compile time; panics if it is another one.
    pub fn typed<S: Element>(self) -> View<'a, S> {
        assert_eq!(self.dtype, S::DTYPE, "a kernel row was handed another element type than it was chosen for");
        let len = span(&self.dims, &self.strides);
        let data = if len == 0 {
            &[]
        } else {
            // SAFETY: `from_raw`'s caller vouched for this range, type and alignment for all of `'a`.
            unsafe { std::slice::from_raw_parts(self.addr as *const S, len) }
        };
        View { data, dims: self.dims, strides: self.strides }
    }
}

impl<'a> TensorMut<'a> {
    /// A tensor to be written at an address.
    ///
    /// # Safety
    /// As [`Tensor::from_raw`], and for all of `'a` nobody else may read or write the range at all.
    pub unsafe fn from_raw(addr: usize, dtype: DType, dims: [usize; 6], strides: [usize; 6]) -> TensorMut<'a> {
        // SAFETY: the caller promises more than is asked.
        TensorMut(unsafe { Tensor::from_raw(addr, dtype, dims, strides) }, PhantomData)
    }

    /// A tensor that borrows a slice exclusively; panics if its elements do not fit in it.
    pub fn new<S: Element>(data: &'a mut [S], dims: [usize; 6], strides: [usize; 6]) -> TensorMut<'a> {
        TensorMut(Tensor::new(data, dims, strides), PhantomData)
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The tensor with its element type known at compile time; panics if it is another one.
    pub fn typed<S: Element>(self) -> ViewMut<'a, S> {
        assert_eq!(self.0.dtype, S::DTYPE, "a kernel row was handed another element type than it was chosen for");
        let len = span(&self.0.dims, &self.0.strides);
        let data = if len == 0 {
            &mut []
        } else {
            // SAFETY: `from_raw`'s caller vouched for exclusive use of this range for all of `'a`.
            unsafe { std::slice::from_raw_parts_mut(self.0.addr as *mut S, len) }
        };
        ViewMut { data, dims: self.0.dims, strides: self.0.strides }
    }
}

/// A typed tensor to be read. `data` spans from its first to its last element.
#[derive(Clone, Copy)]
pub struct View<'a, S> {
    /// The memory.
    pub data: &'a [S],
    /// Sizes of the six canonical indices.
    pub dims: [usize; 6],
    /// Strides of the six canonical indices, in elements.
    pub strides: [usize; 6],
}

/// A typed tensor to be written.
pub struct ViewMut<'a, S> {
    /// The memory.
    pub data: &'a mut [S],
    /// Sizes of the six canonical indices.
    pub dims: [usize; 6],
    /// Strides of the six canonical indices, in elements.
    pub strides: [usize; 6],
}

fn offset(strides: &[usize; 6], at: [usize; 6]) -> usize {
    strides.iter().zip(at).map(|(s, i)| s * i).sum()
}

/// All positions in a tensor of these sizes, the last index fastest.
pub fn positions(dims: [usize; 6]) -> impl Iterator<Item = [usize; 6]> {
    (0..dims.iter().product()).map(move |flat: usize| {
        let (mut rest, mut at) = (flat, [0; 6]);
        for axis in (0..6).rev() {
            at[axis] = rest % dims[axis];
            rest /= dims[axis];
        }
        at
    })
}

impl<S: Element> View<'_, S> {
    /// The element at six indices.
    pub fn at(&self, at: [usize; 6]) -> S {
        self.data[offset(&self.strides, at)]
    }
}

impl<S: Element> ViewMut<'_, S> {
    /// Writes the element at six indices.
    pub fn set(&mut self, at: [usize; 6], value: S) {
        self.data[offset(&self.strides, at)] = value;
    }
}

/// Where memory is cut into parts.
#[derive(Clone, Copy, Debug)]
pub enum Cuts<'a> {
    /// Part `i` is `bounds[i]..bounds[i + 1]`; the bounds ascend.
    At(&'a [usize]),
    /// Part `i` is the `i`-th piece of this length.
    Every(usize),
}

/// Memory that the numbered parts of a job share out.
pub struct Shards<'a, T> {
    base: *mut T,
    len: usize,
    cuts: Cuts<'a>,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: parts are disjoint and each is handed to one thread at a time by the contract of `part`.
unsafe impl<T: Send> Sync for Shards<'_, T> {}

impl<'a, T> Shards<'a, T> {
    /// Cuts `memory`.
    pub fn new(memory: &'a mut [T], cuts: Cuts<'a>) -> Shards<'a, T> {
        if let Cuts::At(bounds) = cuts {
            assert!(bounds.is_sorted(), "bounds must ascend");
        }
        Shards { base: memory.as_mut_ptr(), len: memory.len(), cuts, memory: PhantomData }
    }

    /// Part number `index`; panics if it leaves the memory.
    ///
    /// # Safety
    /// No two results for the same index may be alive at once.
    #[allow(clippy::mut_from_ref)] // Exclusivity is per part and the caller's duty.
    pub unsafe fn part(&self, index: usize) -> &mut [T] {
        let (from, to) = match self.cuts {
            Cuts::At(bounds) => (bounds[index], bounds[index + 1]),
            Cuts::Every(each) => (index * each, (index + 1) * each),
        };
        assert!(from <= to && to <= self.len, "part {from}..{to} leaves {} numbers", self.len);
        // SAFETY: inside the memory, as just asserted; ascending cuts are disjoint and the caller keeps parts unique.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(from), to - from) }
    }
}

/// Cuts `bytes` into `count` equal pieces of `len` numbers each, aligned to 64 bytes, plus what is left over.
/// Returns an empty list when the bytes do not suffice.
pub fn carve<T: Scalar>(bytes: &mut [u8], count: usize, len: usize) -> (&mut [T], &mut [u8]) {
    let skip = bytes.as_ptr().align_offset(64);
    let need = skip + count * padded::<T>(len) * size_of::<T>();
    assert!(need <= bytes.len(), "workspace of {} bytes is short of the {need} asked for", bytes.len());
    let (mine, rest) = bytes.split_at_mut(need);
    let start = mine[skip..].as_mut_ptr().cast::<T>();
    // SAFETY: inside `mine`, aligned to 64 bytes; any bit pattern is a valid number of a `Scalar` type.
    (unsafe { std::slice::from_raw_parts_mut(start, count * padded::<T>(len)) }, rest)
}

/// `len` rounded up so that pieces of it stay 64-byte aligned.
pub fn padded<T>(len: usize) -> usize {
    len.next_multiple_of(64 / size_of::<T>())
}

/// Bytes that [`carve`] may use for `count` pieces of `len` numbers.
pub fn carved_bytes<T>(count: usize, len: usize) -> usize {
    64 + count * padded::<T>(len) * size_of::<T>()
}
