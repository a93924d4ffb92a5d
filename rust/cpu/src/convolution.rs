//! The rows of convolution: for every instruction set two vector directions for depthwise problems, and one for dense
//! and grouped ones, whose channels are summed one after the other.

use crate::frame::Lanes;
use crate::produce::Produce;
use crate::slide::Slid;
use crate::weigh::Weigh;
use striate_core::{DType, Kernel, Layout, Pass, Problem, Program, Why, with_scalar};
use striate_simd::portable::Portable;
use striate_simd::slide::Slide;
use striate_simd::{Every, Isa, Simd};

/// Sweeps of a strided input gradient and taps of a kernel above which compiled offsets would outgrow their use.
const MOST_SWEEPS: i64 = 4096;
const MOST_TAPS: i64 = 1 << 17;
/// Columns of contiguous planes up to which lanes of channels were found to gain.
const WIDEST: i64 = 64;

pub(crate) fn depthwise(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    if g.c_in() != 1 {
        return Err(format!("takes one input channel per group, got {}", g.c_in()));
    }
    small(problem)
}

fn sliding(problem: &Problem) -> Result<(), Why> {
    if problem.geometry.c_in() < 2 {
        return Err("takes several input channels per group".into());
    }
    small(problem)
}

fn small(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    let sweeps: i64 = g.axes().iter().map(|a| a.sweep_count(problem.pass)).product();
    if sweeps > MOST_SWEEPS {
        return Err(format!("takes at most {MOST_SWEEPS} residues of the stride, got {sweeps}"));
    }
    let taps: i64 = g.axes().iter().map(|a| a.kernel()).product();
    if taps > MOST_TAPS {
        return Err(format!("takes at most {MOST_TAPS} taps, got {taps}"));
    }
    Ok(())
}

/// What turning a contiguous tensor into vectors of channels and back costs, in multiply-adds of a vector.
const TURNING: f64 = 10.0;

/// Contiguous tensors are worth turning where lanes of columns would idle: on planes narrower than a vector, and under
/// kernels so tall that much of their reach is padding, which lanes of channels leave out.
pub(crate) fn channels<I: Every>(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    if g.c_out() != 1 {
        return Err(format!("takes one output channel per group, got {}", g.c_out()));
    }
    if problem.layout == Layout::Nhwc {
        return depthwise(problem);
    }
    let lanes = if problem.dtype == DType::F64 { <I as Simd<f64>>::LANES } else { <I as Simd<f32>>::LANES };
    if crate::planes::takes(problem, lanes as i64) {
        return Err("leaves small planes to vectors of columns".into());
    }
    let [deep, rows, columns] = g.axes();
    let (wide, groups) = (columns.extent(if problem.pass == Pass::Dx { Pass::Dx } else { Pass::Fwd }), g.groups());
    let vectors = |count: i64| (count as f64 / lanes as f64).ceil() * lanes as f64 / count as f64;
    let taps: f64 = g.axes().iter().map(|a| a.kernel() as f64).product();
    let met = (0..rows.kernel()).map(|k| rows.walk(Pass::Dw, k).len as f64).sum::<f64>();
    let real = met / (rows.kernel() * rows.output()) as f64;
    // Measured on planes of 14 to 112 columns and kernels of 7x7 to 31x31, 51x5 and 7x7x7.
    let (slower, fits) = match problem.pass {
        Pass::Dw => (1.2, wide <= 2 * lanes as i64 || columns.kernel() >= 7),
        _ => (1.0, true),
    };
    let narrow = wide <= 8 || wide <= lanes as i64 && columns.stride() == 1;
    let flat = deep.kernel() == 1 && columns.stride() == 1 && wide <= WIDEST;
    let tall = flat && fits && (taps * real + TURNING) * vectors(groups) * slower < taps * vectors(wide);
    if groups < 8 || !(narrow || tall) {
        return Err(format!("takes contiguous tensors of few columns and 8 channels or more, got {wide} and {groups}"));
    }
    depthwise(problem)
}

fn compile<I: Every>(problem: &Problem, lanes: Lanes) -> Box<dyn Program> {
    let isa = I::detect().expect("a row is compiled only where it is available");
    with_scalar!(problem.dtype, S => match problem.pass {
        Pass::Dw => Box::new(Weigh::<S, I>::new(problem, lanes, isa)) as Box<dyn Program>,
        _ => Box::new(Produce::<S, I>::new(problem, lanes, isa)),
    })
}

fn compile_slide<I: Slide<f32> + Slide<f64>>(problem: &Problem) -> Box<dyn Program> {
    let isa = I::detect().expect("a row is compiled only where it is available");
    match problem.dtype {
        DType::F64 => Box::new(Slid::<f64, I>::new(problem, isa)),
        _ => Box::new(Slid::<f32, I>::new(problem, isa)),
    }
}

/// A row of one vector direction and instruction set.
macro_rules! row {
    (channels, $token:ty, $isa:literal) => {
        row!(
            $token,
            $isa,
            "depthwise.channels",
            channels::<$token>,
            Lanes::Channels,
            "vectors of channels; channels-last tensors, narrow planes and tall kernels"
        )
    };
    (width, $token:ty, $isa:literal) => {
        row!(
            $token,
            $isa,
            "depthwise.width",
            depthwise,
            Lanes::Width,
            "vectors of neighbouring columns; any layout and channel multiplier"
        )
    };
    (sliding, $token:ty, $isa:literal) => {
        row!(
            $token,
            $isa,
            "sliding.width",
            sliding,
            Lanes::Width,
            "vectors of neighbouring columns, channel by channel; few channels under long or wide kernels"
        )
    };
    (slide, $token:ty, $isa:literal) => {
        Kernel {
            name: concat!("slide.width.", $isa),
            op: "conv",
            passes: &[Pass::Fwd],
            layouts: &[Layout::Nchw],
            isa: $isa,
            available: || <$token>::detect().is_some(),
            supports: crate::slide::supports,
            compile: compile_slide::<$token>,
            note: "vectors that slide across a pair of registers, as published; one dimension, chosen by a filter alone",
        }
    };
    ($token:ty, $isa:literal, $family:literal, $supports:expr, $lanes:expr, $note:literal) => {
        Kernel {
            name: concat!($family, ".", $isa),
            op: "conv",
            passes: &[Pass::Fwd, Pass::Dx, Pass::Dw],
            layouts: &[Layout::Nchw, Layout::Nhwc],
            isa: $isa,
            available: || <$token>::detect().is_some(),
            supports: $supports,
            compile: |problem| compile::<$token>(problem, $lanes),
            note: $note,
        }
    };
}

/// Every row, most preferred first.
pub static ROWS: &[Kernel] = &[
    #[cfg(target_arch = "x86_64")]
    row!(channels, striate_simd::x86::Avx512, "avx512"),
    #[cfg(target_arch = "x86_64")]
    row!(width, striate_simd::x86::Avx512, "avx512"),
    #[cfg(target_arch = "x86_64")]
    row!(sliding, striate_simd::x86::Avx512, "avx512"),
    #[cfg(target_arch = "x86_64")]
    row!(channels, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "x86_64")]
    row!(width, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "x86_64")]
    row!(sliding, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "aarch64")]
    row!(channels, striate_simd::neon::Neon, "neon"),
    #[cfg(target_arch = "aarch64")]
    row!(width, striate_simd::neon::Neon, "neon"),
    #[cfg(target_arch = "aarch64")]
    row!(sliding, striate_simd::neon::Neon, "neon"),
    row!(channels, Portable, "portable"),
    row!(width, Portable, "portable"),
    row!(sliding, Portable, "portable"),
    // Whatever these take, rows before them take.
    #[cfg(target_arch = "x86_64")]
    row!(slide, striate_simd::x86::Avx512, "avx512"),
    #[cfg(target_arch = "x86_64")]
    row!(slide, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "aarch64")]
    row!(slide, striate_simd::neon::Neon, "neon"),
    row!(slide, Portable, "portable"),
];
