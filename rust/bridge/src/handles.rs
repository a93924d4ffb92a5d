//! Owners of what torch hands to a kernel: each gives its object back exactly once, on every path.

use crate::torch_pool::forked;
use crate::torch_stable::{Boxed, Handle, Shim, shim};
use std::ptr::null_mut;
use striate_core::DType;

/// Most dimensions a tensor of a convolution has: batch, channels, three axes.
pub const MAX_DIM: usize = 5;

/// Sizes and strides; entries past `dim` are 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Number of dimensions; with more than [`MAX_DIM`] nothing else is filled in.
    pub dim: usize,
    /// Sizes.
    pub sizes: [i64; MAX_DIM],
    /// Strides in elements.
    pub strides: [i64; MAX_DIM],
}

impl Shape {
    /// Sizes of the dimensions that exist.
    pub fn sizes(&self) -> &[i64] {
        &self.sizes[..self.dim.min(MAX_DIM)]
    }

    /// Strides of the dimensions that exist.
    pub fn strides(&self) -> &[i64] {
        &self.strides[..self.dim.min(MAX_DIM)]
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.sizes().contains(&0)
    }

    fn steps_through(&self, innermost_first: impl Iterator<Item = usize>) -> bool {
        let mut expected = 1;
        for axis in innermost_first {
            if self.sizes[axis] != 1 {
                if self.strides[axis] != expected {
                    return false;
                }
                expected *= self.sizes[axis];
            }
        }
        true
    }

    /// Whether memory follows the order of the dimensions; torch counts every empty tensor in.
    pub fn is_contiguous(&self) -> bool {
        self.is_empty() || self.steps_through((0..self.dim).rev())
    }

    /// Whether memory follows that order with the channels (dimension 1) innermost.
    pub fn is_channels_last(&self) -> bool {
        self.is_empty() || self.steps_through([1].into_iter().chain((2..self.dim).rev()).chain([0]))
    }

    /// A dense shape, channels innermost or not.
    pub fn dense(sizes: &[i64], channels_last: bool) -> Shape {
        let mut shape = Shape { dim: sizes.len(), sizes: [1; MAX_DIM], strides: [1; MAX_DIM] };
        shape.sizes[..sizes.len()].copy_from_slice(sizes);
        let mut step = 1;
        let mut place = |axis: usize| {
            shape.strides[axis] = step;
            step *= sizes[axis].max(1);
        };
        if channels_last {
            place(1);
            (2..sizes.len()).rev().for_each(&mut place);
            place(0);
        } else {
            (0..sizes.len()).rev().for_each(&mut place);
        }
        shape
    }
}

/// Where a tensor lies: torch's code of the kind of device, and its number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Kind of device.
    pub kind: i32,
    /// Number among its kind.
    pub index: i32,
}

impl Home {
    /// Host memory.
    pub fn host() -> Home {
        Home { kind: shim().host, index: 0 }
    }
}

/// A tensor that is ours to give back or to return.
pub struct Tensor(Handle);

impl Drop for Tensor {
    fn drop(&mut self) {
        // SAFETY: the handle is owned by this value alone and used no more.
        unsafe { (shim().delete_tensor)(self.0) };
    }
}

impl Tensor {
    /// # Safety
    /// The word must be a tensor argument that nobody else gives back.
    pub unsafe fn own(word: Boxed) -> Tensor {
        Tensor(word as Handle)
    }

    /// # Safety
    /// The word must be an optional tensor argument that nobody else gives back: zero, or the address of a box on
    /// torch's heap that holds a tensor.
    pub unsafe fn own_optional(word: Boxed) -> Option<Tensor> {
        let boxed = word as *mut Boxed;
        if boxed.is_null() {
            return None;
        }
        let shim = shim();
        // SAFETY: a live box by the caller's promise; read before it is freed, freed once.
        unsafe {
            let tensor = Tensor::own(*boxed);
            match (shim.delete_boxed, shim.operator_delete) {
                (Some(delete), _) => drop(delete(boxed)),
                (None, Some(delete)) => delete(boxed.cast()),
                (None, None) => {}
            }
            Some(tensor)
        }
    }

    /// A new tensor, content arbitrary.
    pub fn empty(shape: &Shape, dtype: i32, home: Home) -> Result<Tensor, String> {
        let shim = shim();
        let (sizes, strides, mut made) = (shape.sizes(), shape.strides(), null_mut());
        // SAFETY: two arrays of `dim` numbers and a place for the handle.
        let code = unsafe {
            let (dim, sizes, strides) = (shape.dim as i64, sizes.as_ptr(), strides.as_ptr());
            (shim.empty_strided)(dim, sizes, strides, dtype, home.kind, home.index, &mut made)
        };
        if code != 0 {
            return Err(shim.error(format_args!("cannot allocate a tensor of {sizes:?}")));
        }
        Ok(Tensor(made))
    }

    /// Leaves the tensor to torch.
    pub fn into_boxed(self) -> Boxed {
        std::mem::ManuallyDrop::new(self).0 as Boxed
    }

    /// Its sizes and strides.
    pub fn shape(&self) -> Result<Shape, String> {
        let shim = shim();
        let (mut dim, mut sizes, mut strides) = (0, null_mut(), null_mut());
        let mut shape = Shape { dim: 0, sizes: [1; MAX_DIM], strides: [1; MAX_DIM] };
        // SAFETY: a live tensor; the two arrays have `dim` entries and live as long as it does.
        unsafe {
            if (shim.dim)(self.0, &mut dim) | (shim.sizes)(self.0, &mut sizes) | (shim.strides)(self.0, &mut strides)
                != 0
            {
                return Err(shim.error("cannot read a tensor's shape"));
            }
            shape.dim = dim as usize;
            for axis in (0..shape.dim).filter(|_| shape.dim <= MAX_DIM) {
                (shape.sizes[axis], shape.strides[axis]) = (*sizes.add(axis), *strides.add(axis));
            }
        }
        Ok(shape)
    }

    /// Torch's code of its element type, and where it lies.
    pub fn codes(&self) -> Result<(i32, Home), String> {
        let (shim, mut dtype, mut home) = (shim(), 0, Home { kind: 0, index: 0 });
        // SAFETY: a live tensor and places for numbers. Host memory has one number, which is not asked for.
        let failed = unsafe {
            let failed = (shim.dtype)(self.0, &mut dtype) | (shim.device)(self.0, &mut home.kind);
            failed | if home.kind == shim.host { 0 } else { (shim.device_index)(self.0, &mut home.index) }
        };
        if failed == 0 { Ok((dtype, home)) } else { Err(shim.error("cannot read a tensor's type")) }
    }

    /// Address of its first element, for reading.
    pub fn address(&self) -> usize {
        let mut address = std::ptr::null();
        // SAFETY: a live tensor and a place for the address.
        unsafe { (shim().data)(self.0, &mut address) };
        address as usize
    }

    /// Address of its first element, for writing.
    pub fn address_mut(&mut self) -> usize {
        let mut address = null_mut();
        // SAFETY: a live tensor and a place for the address.
        unsafe { (shim().data_mut)(self.0, &mut address) };
        address as usize
    }

    /// A dense copy in the given memory order.
    pub fn dense_copy(&self, shape: &Shape, dtype: DType, channels_last: bool) -> Result<Tensor, String> {
        let shim = shim();
        let target = Shape::dense(shape.sizes(), channels_last);
        let (_, home) = self.codes()?;
        let mut made = Tensor::empty(&target, shim.code(dtype), home)?;
        if forked() && home == Home::host() {
            // Torch's copy would wake its OpenMP threads, which do not exist here.
            // SAFETY: both tensors are alive, of these shapes and this element size, and distinct.
            unsafe { copy_strided(self.address(), shape, made.address_mut(), &target, dtype.size()) };
            return Ok(made);
        }
        // SAFETY: plain calls with live tensors; gradients are not recorded for a copy that nobody sees.
        let code = unsafe {
            let recording = (shim.grad_enabled)();
            (shim.set_grad_enabled)(false);
            let code = (shim.copy)(made.0, self.0, 0);
            (shim.set_grad_enabled)(recording);
            code
        };
        if code == 0 { Ok(made) } else { Err(shim.error("cannot copy an operand")) }
    }
}

/// Copies element by element between two shapes of equal sizes.
///
/// # Safety
/// Both addresses must be the first element of a live tensor of the shape, the second writable by nobody else.
unsafe fn copy_strided(from: usize, source: &Shape, to: usize, target: &Shape, size: usize) {
    let mut at = [0i64; MAX_DIM];
    let count: i64 = source.sizes().iter().product();
    for _ in 0..count {
        let offset = |strides: &[i64]| strides.iter().zip(at).map(|(s, i)| s * i).sum::<i64>() as usize * size;
        let (read, write) = (from + offset(source.strides()), to + offset(target.strides()));
        // SAFETY: the indices are inside both shapes, which the caller vouched for.
        unsafe { std::ptr::copy_nonoverlapping(read as *const u8, write as *mut u8, size) };
        for axis in (0..source.dim).rev() {
            at[axis] += 1;
            if at[axis] < source.sizes[axis] {
                break;
            }
            at[axis] = 0;
        }
    }
}

impl Shim {
    /// Torch's code of a storage type.
    pub fn code(&self, dtype: DType) -> i32 {
        self.dtypes[match dtype {
            DType::F32 => 0,
            DType::F64 => 1,
            DType::Bf16 => 2,
            DType::F16 => 3,
            DType::I32 | DType::I64 => unreachable!("no operator registered here has integer tensors"),
        }]
    }

    /// The storage type of torch's code, if striate has it.
    pub fn storage(&self, code: i32) -> Option<DType> {
        DType::ALL.into_iter().find(|&dtype| self.code(dtype) == code)
    }
}

/// A string that is ours to give back.
pub struct Text(Handle);

impl Drop for Text {
    fn drop(&mut self) {
        // SAFETY: the handle is owned by this value alone and used no more.
        unsafe { (shim().delete_string)(self.0) };
    }
}

impl Text {
    /// # Safety
    /// The word must be a string argument that nobody else gives back.
    pub unsafe fn own(word: Boxed) -> Text {
        Text(word as Handle)
    }

    /// Its characters; none if they are not UTF-8.
    pub fn as_str(&self) -> &str {
        let (shim, mut len, mut start) = (shim(), 0, std::ptr::null());
        // SAFETY: a live string, whose bytes live as long as it does.
        unsafe {
            if (shim.string_length)(self.0, &mut len) | (shim.string_start)(self.0, &mut start) != 0 {
                return "";
            }
            std::str::from_utf8(std::slice::from_raw_parts(start.cast(), len)).unwrap_or("")
        }
    }
}
