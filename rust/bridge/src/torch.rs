//! The three operators as torch's dispatcher calls them, in host memory and on CUDA devices.
//!
//! A kernel owns its inputs: they are taken over first, by values that give them back on every path, and only then
//! looked at. Failures and panics become C++ exceptions, which Python sees as `RuntimeError`.

use crate::handles::{Home, Ints, MAX_DIM, Shape, Tensor};
use crate::launch::{Addresses, is_empty, launch, panic_text};
use crate::request::{Facts, Request};
use crate::torch_pool::{estimated_microseconds, with_pool};
use crate::torch_stable::{Boxed, Kernel, Shim, WRITTEN_FOR, connect, shim};
use std::ffi::{CStr, CString};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr::null_mut;
use std::sync::Mutex;
use striate_core::{Device, Layout, Pass, Role};

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
    answer(stack, c"striate::conv", || {
        // SAFETY: the schema has seven arguments, of these types in this order; they are taken over once.
        unsafe {
            let tensors = (Tensor::own(*stack), Tensor::own(*stack.add(1)), Tensor::own_optional(*stack.add(2)));
            let lists = [3, 4, 5].map(|i| Ints::own(*stack.add(i)));
            (Pass::Fwd, tensors, lists, None, *stack.add(6) as i64, false)
        }
    });
}

extern "C-unwind" fn conv_grad_input(stack: *mut Boxed, _inputs: u64, _outputs: u64) {
    answer(stack, c"striate::conv_grad_input", || {
        // SAFETY: the schema has eight arguments, of these types in this order; they are taken over once.
        unsafe {
            let tensors = (Tensor::own(*stack), Tensor::own(*stack.add(1)), Tensor::own_optional(*stack.add(2)));
            let lists = [3, 4, 6].map(|i| Ints::own(*stack.add(i)));
            (Pass::Dx, tensors, lists, Some(Ints::own(*stack.add(5))), *stack.add(7) as i64, false)
        }
    });
}

extern "C-unwind" fn conv_grad_weight(stack: *mut Boxed, _inputs: u64, _outputs: u64) {
    answer(stack, c"striate::conv_grad_weight", || {
        // SAFETY: the schema has eight arguments, of these types in this order; they are taken over once. A bool
        // fills the lowest byte of its word.
        unsafe {
            let tensors = (Tensor::own(*stack), Tensor::own(*stack.add(1)), None);
            let lists = [3, 4, 5].map(|i| Ints::own(*stack.add(i)));
            let wide = *stack.add(7) & 0xff != 0;
            (Pass::Dw, tensors, lists, Some(Ints::own(*stack.add(2))), *stack.add(6) as i64, wide)
        }
    });
}

/// Pass, tensors, (stride, padding, dilation), extra list, groups, wide: see [`Request`].
type Arguments = (Pass, (Tensor, Tensor, Option<Tensor>), [Ints; 3], Option<Ints>, i64, bool);

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
    let (pass, (first, second, bias), [stride, padding, dilation], extra, groups, wide) = arguments;
    let ((one, home), (two, other)) = (facts(shim, &first)?, facts(shim, &second)?);
    let known = bias.as_ref().map(|bias| facts(shim, bias)).transpose()?;
    let device = device(shim, home, &[("second tensor", Some(other)), ("bias", known.as_ref().map(|known| known.1))])?;
    let known = known.map(|(known, _)| known);
    let request =
        Request { pass, device, operands: [one, two], bias: known, stride, padding, dilation, extra, groups, wide };
    let problem = request.problem()?;
    let code = shim.code(problem.dtype_of(Role::of(pass)[2]));
    let mut out = Tensor::empty(&request.result(&problem), code, home)?;
    if is_empty(&problem) {
        return Ok(out);
    }
    let last = problem.layout == Layout::Nhwc;
    let copies = request.needs_copy(problem.layout);
    let dense = |tensor: Tensor, index: usize, last: bool| {
        let Facts { shape, dtype } = &request.operands[index];
        match dtype {
            Ok(dtype) if copies[index] => tensor.dense_copy(shape, *dtype, last),
            _ => Ok(tensor),
        }
    };
    let first = dense(first, 0, last)?;
    let second = dense(second, 1, last && pass == Pass::Dw)?;
    let bias = match (bias, &request.bias) {
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
        unsafe { crate::cuda::launch(&problem, at, home) }
    } else {
        let plan = crate::planning::plan(&problem).map_err(|refused| refused.to_string())?;
        with_pool(shim, estimated_microseconds(&plan), |pool| {
            // SAFETY: live tensors, dense in the problem's order; the result is fresh, so nobody else knows it.
            unsafe { launch(&plan, at, pool, lend_from_torch) }
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
