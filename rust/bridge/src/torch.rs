//! The three operators as torch's dispatcher calls them, in host memory and on CUDA devices.
//!
//! A kernel owns its inputs: they are taken over first, by values that give them back on every path, and only then
//! looked at. Failures and panics become C++ exceptions, which Python sees as `RuntimeError`.

use crate::handles::{Home, MAX_DIM, Shape, Tensor, Text};
use crate::launch::{Addresses, is_empty, launch, panic_text};
use crate::prepared::{Looks, prepared};
use crate::request::Facts;
use crate::torch_pool::with_pool;
use crate::torch_stable::{Boxed, Kernel, Shim, WRITTEN_FOR, connect, shim};
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Mutex;
use striate_core::{Device, Pass, Role};

/// Operators and their kernels. The schemas stand in python/striate/ops/_convolution.py.
const KERNELS: [(&CStr, Kernel); 3] =
    [(c"conv", conv), (c"conv_grad_input", conv_grad_input), (c"conv_grad_weight", conv_grad_weight)];

/// Registers the kernels with the libtorch_cpu at `path`; once done, does nothing more.
pub fn register(path: &Path) -> Result<(), String> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().map_err(|_| "an earlier registration failed half way")?;
    if *done {
        return Ok(());
    }
    let shim = connect(path)?;
    for key in [c"CPU", c"CUDA"] {
        let mut library = null_mut();
        // SAFETY: terminated strings and a place for the library, which lives as long as the process.
        let code = unsafe {
            (shim.library_init_impl)(c"striate".as_ptr(), key.as_ptr(), c"torch.rs".as_ptr(), line!(), &mut library)
        };
        if code != 0 {
            return Err(shim.error("cannot open the operator library striate"));
        }
        for (name, kernel) in KERNELS {
            // SAFETY: a live library, a terminated string and a function of this library, which is never unloaded.
            if unsafe { (shim.library_impl)(library, name.as_ptr(), kernel, WRITTEN_FOR) } != 0 {
                return Err(shim.error(format_args!("cannot register striate::{}", name.to_string_lossy())));
            }
        }
    }
    // From here on forks are counted.
    crate::planning::generation();
    *done = true;
    Ok(())
}

extern "C-unwind" fn conv(stack: *mut Boxed, _inputs: u64, _outputs: u64) {
    // SAFETY: the schema has an optional bias and four arguments.
    answer(stack, c"striate::conv", || unsafe { with_bias(Pass::Fwd, stack) });
}

extern "C-unwind" fn conv_grad_input(stack: *mut Boxed, _inputs: u64, _outputs: u64) {
    // SAFETY: the schema has an optional bias and four arguments.
    answer(stack, c"striate::conv_grad_input", || unsafe { with_bias(Pass::Dx, stack) });
}

extern "C-unwind" fn conv_grad_weight(stack: *mut Boxed, _inputs: u64, _outputs: u64) {
    answer(stack, c"striate::conv_grad_weight", || {
        // SAFETY: the schema has two tensors and a string, in this order; they are taken over once.
        unsafe { (Pass::Dw, (Tensor::own(*stack), Tensor::own(*stack.add(1)), None), Text::own(*stack.add(2))) }
    });
}

/// # Safety
/// The stack must hold two tensors, an optional one and a string, which are taken over.
unsafe fn with_bias(pass: Pass, stack: *mut Boxed) -> Arguments {
    // SAFETY: by the caller's promise.
    unsafe {
        let bias = Tensor::own_optional(*stack.add(2));
        (pass, (Tensor::own(*stack), Tensor::own(*stack.add(1)), bias), Text::own(*stack.add(3)))
    }
}

/// Pass, tensors and configuration: see [`crate::config`].
type Arguments = (Pass, (Tensor, Tensor, Option<Tensor>), Text);

/// Puts the result on the stack or throws.
fn answer(stack: *mut Boxed, name: &CStr, take: impl FnOnce() -> Arguments) {
    let outcome = catch_unwind(AssertUnwindSafe(|| produce(take())));
    let failure = match outcome {
        Ok(Ok(result)) => {
            // SAFETY: the stack has room for the one result; the inputs there are given back.
            return unsafe { *stack = result.into_boxed() };
        }
        Ok(Err(failure)) => failure,
        Err(panic) => panic_text(panic),
    };
    let text = format!("{}: {failure}", name.to_string_lossy()).replace('\0', " ");
    let text = CString::new(text).expect("zero bytes were replaced");
    // SAFETY: terminated strings. The call throws; `text` is all that the unwinding finds in this frame.
    unsafe { (shim().check)(false, name.as_ptr(), c"torch.rs".as_ptr(), line!(), text.as_ptr()) };
}

fn facts(shim: &Shim, tensor: &Tensor) -> Result<(Facts, Home), String> {
    let (code, home) = tensor.codes()?;
    Ok((Facts { shape: tensor.shape()?, dtype: shim.storage(code).ok_or(code) }, home))
}

/// The device that an operator runs on: that of its first tensor, which the others must share.
fn device(shim: &Shim, first: Home, others: &[(&str, Option<Home>)]) -> Result<Device, String> {
    for (name, home) in others {
        if home.is_some_and(|home| home != first) {
            return Err(format!("{name}: expected a tensor on the device of the first one"));
        }
    }
    match first.kind {
        kind if kind == shim.host => Ok(Device::Cpu),
        kind if kind == shim.cuda => Ok(Device::Cuda),
        kind => Err(format!("first tensor: expected one in host memory or on a CUDA device, got device type {kind}")),
    }
}

fn produce(arguments: Arguments) -> Result<Tensor, String> {
    let shim = shim();
    let (pass, (first, second, bias), config) = arguments;
    let ((one, home), (two, other)) = (facts(shim, &first)?, facts(shim, &second)?);
    let known = bias.as_ref().map(|bias| facts(shim, bias)).transpose()?;
    let device = device(shim, home, &[("second tensor", Some(other)), ("bias", known.as_ref().map(|known| known.1))])?;
    let looks = Looks { pass, device, operands: [one, two], bias: known.map(|(known, _)| known) };
    let call = prepared(&looks, config.as_str())?;
    let problem = &call.problem;
    let mut out = Tensor::empty(&call.result, shim.code(problem.dtype_of(Role::of(pass)[2])), home)?;
    if is_empty(problem) {
        return Ok(out);
    }
    let last = call.channels_last();
    let dense = |tensor: Tensor, index: usize, last: bool| {
        let Facts { shape, dtype } = &looks.operands[index];
        match dtype {
            Ok(dtype) if call.copies[index] => tensor.dense_copy(shape, *dtype, last),
            _ => Ok(tensor),
        }
    };
    let first = dense(first, 0, last)?;
    let second = dense(second, 1, last && pass == Pass::Dw)?;
    let bias = match (bias, &looks.bias) {
        (Some(tensor), Some(known)) if !known.shape.is_contiguous() => {
            Some(tensor.dense_copy(&known.shape, problem.weight_dtype, false)?)
        }
        (bias, _) => bias,
    };
    let address = bias.as_ref().map_or(0, Tensor::address);
    let at = Addresses { first: first.address(), second: second.address(), bias: address, out: out.address_mut() };
    if device == Device::Cuda {
        // SAFETY: live tensors of one device, dense in the problem's order; torch keeps their memory until the
        // stream has passed, also when their last owner lets go of them.
        unsafe { crate::cuda::launch(problem, at, home) }
    } else {
        let (plan, microseconds) = call.plan()?;
        with_pool(shim, *microseconds, |pool| {
            // SAFETY: live tensors, dense in the problem's order; the result is fresh, so nobody else knows it.
            unsafe { launch(plan, at, pool, lend_from_torch) }
        })
    }
    .map_err(|why| format!("{why} [{problem}]"))?;
    Ok(out)
}

/// Memory from torch's allocator.
pub fn bytes_at(bytes: usize, home: Home) -> Result<Tensor, String> {
    let mut shape = Shape { dim: 1, sizes: [1; MAX_DIM], strides: [1; MAX_DIM] };
    shape.sizes[0] = i64::try_from(bytes).map_err(|_| "workspace too large")?;
    Tensor::empty(&shape, shim().dtypes[4], home)
}

/// Lends workspace in host memory from torch's allocator.
pub fn lend_from_torch(bytes: usize, run: &mut dyn FnMut(&mut [u8])) -> Result<(), String> {
    let mut space = bytes_at(bytes, Home::host())?;
    // SAFETY: a fresh tensor of this many bytes, alive until the end of this function and known to nobody else.
    run(unsafe { std::slice::from_raw_parts_mut(space.address_mut() as *mut u8, bytes) });
    Ok(())
}
