//! A convolution to be run, hashable, and printed and parsed as one line. The line names a test case, a benchmark
//! case, a log entry and a bug report.

use crate::axis::{Axis, Pass};
use crate::geometry::{Channels, Geometry};
use std::fmt;
use std::str::FromStr;

/// Storage type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
    /// 32-bit integer: positions and lengths, never convolved.
    I32,
    /// 64-bit integer: positions and lengths, never convolved.
    I64,
}

impl DType {
    /// The types that are computed on.
    pub const ALL: [DType; 4] = [DType::F32, DType::F64, DType::Bf16, DType::F16];

    /// Its word in a problem line.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::I64 => "i64",
        }
    }
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 => 8,
            DType::Bf16 | DType::F16 => 2,
        }
    }
    /// The type its sums are carried in.
    pub fn accumulator(self) -> DType {
        if self == DType::F64 { DType::F64 } else { DType::F32 }
    }
}

/// Memory order of the activations: channels before or after the spatial dimensions, for every rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Layout {
    /// `[n, c, spatial...]`, contiguous.
    Nchw,
    /// `[n, spatial..., c]`, channels last.
    Nhwc,
}

impl Layout {
    /// Its word in a problem line.
    pub fn name(self) -> &'static str {
        if self == Layout::Nchw { "nchw" } else { "nhwc" }
    }
}

/// Where the tensors lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Device {
    /// Host memory.
    Cpu,
    /// An NVIDIA device.
    Cuda,
}

impl Device {
    /// Its word in a problem line.
    pub fn name(self) -> &'static str {
        if self == Device::Cpu { "cpu" } else { "cuda" }
    }
}

/// One convolution pass to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Which tensor is produced.
    pub pass: Pass,
    /// Storage type of the activations.
    pub dtype: DType,
    /// Storage type of weight, bias and weight gradient: `dtype`, or its accumulator.
    pub weight_dtype: DType,
    /// Memory order of the activations.
    pub layout: Layout,
    /// Where it runs.
    pub device: Device,
    /// Whether products of 32-bit floats may round them to the ten bits of tf32 first.
    pub tf32: bool,
    /// The shape.
    pub geometry: Geometry,
}

fn pass_name(pass: Pass) -> &'static str {
    match pass {
        Pass::Fwd => "fwd",
        Pass::Dx => "dx",
        Pass::Dw => "dw",
    }
}

fn joined(axes: &[Axis], part: impl Fn(&Axis) -> String) -> String {
    axes.iter().map(part).collect::<Vec<_>>().join("x")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (g, axes) = (&self.geometry, self.geometry.real_axes());
        write!(f, "conv {} {}", pass_name(self.pass), self.dtype.name())?;
        if self.weight_dtype != self.dtype {
            write!(f, ":{}", self.weight_dtype.name())?;
        }
        write!(f, " {} {}", self.layout.name(), self.device.name())?;
        write!(f, " n{} g{} ci{} co{}", g.batch(), g.groups(), g.c_in(), g.c_out())?;
        write!(f, " i{} k{}", joined(axes, |a| a.input().to_string()), joined(axes, |a| a.kernel().to_string()))?;
        write!(f, " s{} d{}", joined(axes, |a| a.stride().to_string()), joined(axes, |a| a.dilation().to_string()))?;
        write!(f, " p{}", joined(axes, |a| format!("{}+{}", a.pad().0, a.pad().1)))?;
        f.write_str(if self.tf32 { " tf32" } else { "" })
    }
}

fn one_of<T: Copy>(word: &str, what: &str, choices: &[T], name: impl Fn(T) -> &'static str) -> Result<T, String> {
    choices.iter().copied().find(|&c| name(c) == word).ok_or_else(|| {
        let known: Vec<_> = choices.iter().map(|&c| name(c)).collect();
        format!("{what}: expected one of {}, got {word:?}", known.join(" "))
    })
}

fn tagged<'a>(word: Option<&'a str>, tag: &str) -> Result<&'a str, String> {
    let word = word.ok_or_else(|| format!("expected a word starting with {tag:?}, got the end of the line"))?;
    word.strip_prefix(tag).ok_or_else(|| format!("expected a word starting with {tag:?}, got {word:?}"))
}

fn number(word: &str) -> Result<i64, String> {
    word.parse().map_err(|_| format!("expected an integer, got {word:?}"))
}

fn numbers(word: &str) -> Result<Vec<i64>, String> {
    word.split('x').map(number).collect()
}

impl FromStr for Problem {
    type Err = String;

    fn from_str(line: &str) -> Result<Problem, String> {
        let mut words = line.split_whitespace();
        let mut next = || words.next();
        if next() != Some("conv") {
            return Err("a problem line starts with the operation \"conv\"".into());
        }
        let mut word = |what: &str| next().ok_or_else(|| format!("{what}: missing"));
        let pass = one_of(word("pass")?, "pass", &[Pass::Fwd, Pass::Dx, Pass::Dw], pass_name)?;
        let types = word("dtype")?;
        let (first, second) = types.split_once(':').unwrap_or((types, types));
        let dtype = one_of(first, "dtype", &DType::ALL, DType::name)?;
        let weight_dtype = one_of(second, "weight dtype", &DType::ALL, DType::name)?;
        if weight_dtype != dtype && weight_dtype != dtype.accumulator() {
            return Err(format!("weight dtype: expected {first} or its accumulator, got {second}"));
        }
        let layout = one_of(word("layout")?, "layout", &[Layout::Nchw, Layout::Nhwc], Layout::name)?;
        let device = one_of(word("device")?, "device", &[Device::Cpu, Device::Cuda], Device::name)?;
        let batch = number(tagged(next(), "n")?)?;
        let groups = number(tagged(next(), "g")?)?;
        let c_in = number(tagged(next(), "ci")?)?;
        let c_out = number(tagged(next(), "co")?)?;
        let [input, kernel, stride, dilation] = [
            numbers(tagged(next(), "i")?)?,
            numbers(tagged(next(), "k")?)?,
            numbers(tagged(next(), "s")?)?,
            numbers(tagged(next(), "d")?)?,
        ];
        let pads: Result<Vec<(i64, i64)>, String> = tagged(next(), "p")?
            .split('x')
            .map(|part| {
                let (lo, hi) = part.split_once('+').ok_or_else(|| format!("pad: expected lo+hi, got {part:?}"))?;
                Ok((number(lo)?, number(hi)?))
            })
            .collect();
        let pads = pads?;
        let mut extra = next();
        let tf32 = extra == Some("tf32");
        if tf32 && (dtype, device) != (DType::F32, Device::Cuda) {
            return Err(format!("tf32: expected f32 on cuda, got {} on {}", dtype.name(), device.name()));
        }
        if tf32 {
            extra = next();
        }
        if let Some(extra) = extra {
            return Err(format!("expected the end of the line, got {extra:?}"));
        }
        let rank = input.len();
        if [kernel.len(), stride.len(), dilation.len(), pads.len()].iter().any(|&n| n != rank) {
            return Err(format!("i, k, s, d and p must have the same number of parts, i has {rank}"));
        }
        let axes: Result<Vec<Axis>, String> =
            (0..rank).map(|a| Axis::new(input[a], kernel[a], stride[a], dilation[a], pads[a])).collect();
        let geometry = Geometry::new(batch, Channels { groups, c_in, c_out }, &axes?)?;
        Ok(Problem { pass, dtype, weight_dtype, layout, device, tf32, geometry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_survives_the_round_trip() {
        for line in [
            "conv fwd bf16 nchw cpu n8 g96 ci1 co1 i56x56 k7x7 s1x1 d1x1 p3+3x3+3",
            "conv dx f32 nchw cuda n2 g4 ci1 co1 i90 k40 s1 d1 p39+0 tf32",
            "conv dx f32 nhwc cpu n1 g1 ci3 co8 i17 k4 s2 d3 p-1+5",
            "conv dw f16:f32 nchw cuda n0 g4 ci1 co2 i5x6x7 k1x2x3 s1x2x3 d1x1x2 p0+0x1+0x2+3",
        ] {
            let problem: Problem = line.parse().unwrap();
            assert_eq!(problem.to_string(), line);
        }
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, word) in [
            ("pool fwd", "conv"),
            ("conv sideways f32", "pass"),
            ("conv fwd f8", "dtype"),
            ("conv fwd f32:f16 nchw cpu n1 g1 ci1 co1 i1 k1 s1 d1 p0+0", "weight dtype"),
            ("conv fwd f32 nchw cpu n1 g1 ci1 co1 i5 k6 s1 d1 p0+0", "padded input"),
            ("conv fwd f32 nchw cpu n1 g1 ci1 co1 i5x5 k3 s1 d1 p0+0", "parts"),
            ("conv fwd f32 nchw cpu n1 g0 ci1 co1 i5 k3 s1 d1 p0+0", "groups"),
            ("conv fwd f32 nchw cpu n1 g1 ci1 co1 i5 k3 s1 d1 p0", "lo+hi"),
            ("conv fwd f32 nchw cpu n1 g1 ci1 co1 i5 k3 s1 d1 p0+0 tf32", "cuda"),
            ("conv fwd f16 nchw cuda n1 g1 ci1 co1 i5 k3 s1 d1 p0+0 tf32", "f32"),
            ("conv fwd f32 nchw cuda n1 g1 ci1 co1 i5 k3 s1 d1 p0+0 tf64", "end of the line"),
            ("conv fwd f32 nchw cpu n99999999999 g99999999 ci1 co1 i5 k3 s1 d1 p0+0", "too large"),
        ] {
            let message = line.parse::<Problem>().unwrap_err();
            assert!(message.contains(word), "{line}: {message}");
        }
    }
}
