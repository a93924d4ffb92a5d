//! The torch-free C interface; its header is include/striate.h.

use crate::launch::{Addresses, Failure, guarded, parse, run_line};
use std::ffi::{CStr, c_char, c_int, c_void};
use striate_core::{Axis, Pass};

/// Writes text into a caller's buffer, cut at a character and terminated.
///
/// # Safety
/// `buffer` must be null or point to `len` writable bytes.
unsafe fn write_text(text: &str, buffer: *mut c_char, len: usize) {
    if buffer.is_null() || len == 0 {
        return;
    }
    let room = text.len().min(len - 1);
    let cut = (0..=room).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    // SAFETY: `cut` bytes and the terminator fit in `len`.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, cut);
        *buffer.add(cut) = 0;
    }
}

/// The answer of a function that may fail: 0, 1 for a caller's mistake, 2 for anything else, with the text.
///
/// # Safety
/// As [`write_text`].
unsafe fn status(outcome: Result<(), Failure>, error: *mut c_char, len: usize) -> c_int {
    let (code, text) = match outcome {
        Ok(()) => (0, String::new()),
        Err(Failure::Input(text)) => (1, text),
        Err(Failure::Run(text)) => (2, text),
    };
    // SAFETY: the caller's promise.
    unsafe { write_text(&text, error, len) };
    code
}

/// # Safety
/// `line` must be null or a terminated string.
unsafe fn line_of<'a>(line: *const c_char) -> Result<&'a str, Failure> {
    if line.is_null() {
        return Err(Failure::Input("problem_line: expected a string, got NULL".into()));
    }
    // SAFETY: the caller's promise.
    let line = unsafe { CStr::from_ptr(line) };
    line.to_str().map_err(|_| Failure::Input("problem_line: expected UTF-8".into()))
}

/// The version of the library, a static string.
#[unsafe(no_mangle)]
pub extern "C" fn striate_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Runs one convolution pass; see include/striate.h.
///
/// # Safety
/// `problem_line` must be null or a terminated string; the tensors must be dense in the line's layout, hold its
/// element types and stay untouched during the call; `error` must be null or point to `error_len` writable bytes.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // The C interface is flat: three tensors, a bias, workers, and an error buffer.
pub unsafe extern "C" fn striate_conv(
    problem_line: *const c_char,
    first: *const c_void,
    second: *const c_void,
    bias: *const c_void,
    out: *mut c_void,
    workers: c_int,
    error: *mut c_char,
    error_len: usize,
) -> c_int {
    let [first, second, bias] = [first, second, bias].map(|address| address as usize);
    let at = Addresses { first, second, bias, out: out as usize };
    // SAFETY: this function's contract is that of the functions called.
    unsafe {
        let outcome = guarded(|| run_line(line_of(problem_line)?, at, i64::from(workers)));
        status(outcome, error, error_len)
    }
}

/// Which kernel row a problem line runs on and why earlier ones refused; see include/striate.h.
///
/// # Safety
/// `problem_line` must be null or a terminated string; `text` must be null or point to `text_len` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn striate_explain(problem_line: *const c_char, text: *mut c_char, text_len: usize) -> c_int {
    let outcome = guarded(|| {
        // SAFETY: this function's contract.
        let line = unsafe { line_of(problem_line) }?;
        let problem = parse(line).map_err(|why| Failure::Input(format!("{why} [{line}]")))?;
        let plan = crate::planning::plan(&problem).map_err(|refused| Failure::Run(refused.to_string()))?;
        let refusals: String = plan.refusals.iter().map(|(row, why)| format!("\n{row}: {why}")).collect();
        Ok(format!("{}{refusals}", plan.row.name))
    });
    // SAFETY: this function's contract.
    unsafe {
        match outcome {
            Ok(found) => {
                write_text(&found, text, text_len);
                0
            }
            Err(failure) => status(Err(failure), text, text_len),
        }
    }
}

/// The pairs of positions that meet at position `p` of the tensor a pass produces, along one axis; see
/// include/striate.h.
///
/// # Safety
/// `axis` must be null or point to six numbers, `walk` to five writable ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn striate_axis_walk(pass: c_int, axis: *const i64, p: i64, walk: *mut i64) -> c_int {
    if axis.is_null() || walk.is_null() {
        return 1;
    }
    // SAFETY: this function's contract.
    let [input, kernel, stride, dilation, lo, hi] = unsafe { axis.cast::<[i64; 6]>().read() };
    let outcome = guarded(|| {
        let pass = *[Pass::Fwd, Pass::Dx, Pass::Dw]
            .get(usize::try_from(pass).unwrap_or(usize::MAX))
            .ok_or_else(|| Failure::Input("pass: expected 0, 1 or 2".into()))?;
        let axis = Axis::new(input, kernel, stride, dilation, (lo, hi)).map_err(Failure::Input)?;
        if !(0..axis.extent(pass)).contains(&p) {
            return Err(Failure::Input("p: expected a position of the produced tensor".into()));
        }
        Ok(axis.walk(pass, p))
    });
    match outcome {
        Ok(found) => {
            // SAFETY: this function's contract.
            unsafe { walk.cast::<[i64; 5]>().write([found.a0, found.a_step, found.b0, found.b_step, found.len]) };
            0
        }
        Err(Failure::Input(_)) => 1,
        Err(Failure::Run(_)) => 2,
    }
}
