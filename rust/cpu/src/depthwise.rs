//! The rows of depthwise convolution: two vector directions for every instruction set.

use crate::frame::Lanes;
use crate::produce::Produce;
use crate::weigh::Weigh;
use striate_core::{Kernel, Layout, Pass, Problem, Program, Why, with_scalar};
use striate_simd::portable::Portable;
use striate_simd::{Every, Isa};

/// Sweeps of a strided input gradient and taps of a kernel above which compiled offsets would outgrow their use.
const MOST_SWEEPS: i64 = 4096;
const MOST_TAPS: i64 = 1 << 17;

fn depthwise(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    if g.c_in() != 1 {
        return Err(format!("takes one input channel per group, got {}", g.c_in()));
    }
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

fn channels(problem: &Problem) -> Result<(), Why> {
    let g = &problem.geometry;
    if g.c_out() != 1 {
        return Err(format!("takes one output channel per group, got {}", g.c_out()));
    }
    let wide = g.axes()[2].extent(if problem.pass == Pass::Dx { Pass::Dx } else { Pass::Fwd });
    if problem.layout == Layout::Nchw && (wide > 8 || g.groups() < 8) {
        return Err(format!(
            "takes contiguous tensors of at most 8 columns and at least 8 channels, got {wide} columns and {} channels",
            g.groups()
        ));
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

/// A row of one vector direction and instruction set.
macro_rules! row {
    (channels, $token:ty, $isa:literal) => {
        row!(
            $token,
            $isa,
            "channels",
            channels,
            Lanes::Channels,
            "vectors of channels; channels-last tensors and narrow planes"
        )
    };
    (width, $token:ty, $isa:literal) => {
        row!(
            $token,
            $isa,
            "width",
            depthwise,
            Lanes::Width,
            "vectors of neighbouring columns; any layout and channel multiplier"
        )
    };
    ($token:ty, $isa:literal, $direction:literal, $supports:ident, $lanes:expr, $note:literal) => {
        Kernel {
            name: concat!("depthwise.", $direction, ".", $isa),
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
    row!(channels, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "x86_64")]
    row!(width, striate_simd::x86::Avx2, "avx2"),
    #[cfg(target_arch = "aarch64")]
    row!(channels, striate_simd::neon::Neon, "neon"),
    #[cfg(target_arch = "aarch64")]
    row!(width, striate_simd::neon::Neon, "neon"),
    row!(channels, Portable, "portable"),
    row!(width, Portable, "portable"),
];
