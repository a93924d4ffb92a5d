//! One spatial dimension of a convolution. All stride, dilation and padding arithmetic of the project stands in
//! this file and in its device twin `cuda/axis.cuh`.
//!
//! Output `o`, tap `k` and input `i` meet exactly when `i = o * stride + k * dilation - pad_lo`. The set of meeting
//! triples can be walked from any of its three sides as two arithmetic progressions ([`Walk`]): from the output it
//! is the forward pass, from the input the input gradient (transposed convolution), from the tap the weight
//! gradient. [`Sweep`] groups the produced positions that share one set of taps, which is what fast kernels want.

use std::ops::Range;

/// Which tensor of the convolution is produced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// The output, from input and weight.
    Fwd,
    /// The input gradient (or transposed convolution), from output gradient and weight.
    Dx,
    /// The weight gradient, from output gradient and input.
    Dw,
}

/// Largest magnitude accepted for any size, product of sizes or pad: sums of a few of them stay far inside `i64`.
const LIMIT: i64 = 1 << 48;

/// One spatial dimension; a value that exists is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Axis {
    input: i64,
    kernel: i64,
    output: i64,
    stride: i64,
    dilation: i64,
    pad_lo: i64,
    pad_hi: i64,
}

/// `len` meeting pairs: positions `a0 + n * a_step` of the first operand and `b0 + n * b_step` of the second.
/// Operands by pass: forward (input, weight), input gradient (output gradient, weight), weight gradient
/// (output gradient, input).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// First position in the first operand.
    pub a0: i64,
    /// Step in the first operand.
    pub a_step: i64,
    /// First position in the second operand.
    pub b0: i64,
    /// Step in the second operand.
    pub b_step: i64,
    /// Number of pairs.
    pub len: i64,
}

/// The produced positions `out0 + j * out_step` (`j < outs`) that use the same taps. Position `j` meets tap number
/// `t < taps`, which is kernel position `tap0 + t * tap_step`, at source position
/// `src0 + j * src_step + t * reach_step`; source positions outside the tensor count as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// First produced position.
    pub out0: i64,
    /// Distance between produced positions.
    pub out_step: i64,
    /// Number of produced positions.
    pub outs: i64,
    /// Source position of produced position 0 and tap 0; may be negative.
    pub src0: i64,
    /// Source distance between neighbouring produced positions.
    pub src_step: i64,
    /// Source distance between neighbouring taps; positive.
    pub reach_step: i64,
    /// Kernel position of tap number 0.
    pub tap0: i64,
    /// Kernel distance between neighbouring tap numbers; may be negative.
    pub tap_step: i64,
    /// Number of taps.
    pub taps: i64,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn ceil_div(a: i64, b: i64) -> i64 {
    -(-a).div_euclid(b)
}

impl Axis {
    /// The axis of a missing dimension: one input, one tap, one output.
    pub const UNIT: Axis = Axis { input: 1, kernel: 1, output: 1, stride: 1, dilation: 1, pad_lo: 0, pad_hi: 0 };

    /// A checked axis. `pad` is (low, high) and may be negative, which crops.
    pub fn new(input: i64, kernel: i64, stride: i64, dilation: i64, pad: (i64, i64)) -> Result<Axis, String> {
        let (pad_lo, pad_hi) = pad;
        for (name, value, least) in
            [("input size", input, 0), ("kernel size", kernel, 1), ("stride", stride, 1), ("dilation", dilation, 1)]
        {
            if value < least {
                return Err(format!("{name}: expected at least {least}, got {value}"));
            }
        }
        let reach = (kernel - 1).checked_mul(dilation).unwrap_or(i64::MAX);
        for value in [input, kernel, stride, dilation, reach, pad_lo.saturating_abs(), pad_hi.saturating_abs()] {
            if value > LIMIT {
                return Err(format!("sizes, strides and pads are limited to 2^48, got {value}"));
            }
        }
        let span = input + pad_lo + pad_hi - reach - 1;
        if span < 0 {
            let (padded, extent) = (input + pad_lo + pad_hi, reach + 1);
            return Err(format!("kernel of extent {extent} is larger than the padded input of size {padded}"));
        }
        Ok(Axis { input, kernel, output: span / stride + 1, stride, dilation, pad_lo, pad_hi })
    }

    /// The axis whose input gradient produces `input` positions from `output` ones, as a transposed convolution
    /// needs it. The high pad is adjusted (it may become negative) so that the output size comes out as given.
    pub fn transposed(
        output: i64,
        kernel: i64,
        stride: i64,
        dilation: i64,
        pad: (i64, i64),
        extra: i64,
    ) -> Result<Axis, String> {
        for value in [output, kernel, stride, dilation, extra] {
            if !(0..=LIMIT).contains(&value) {
                return Err(format!("sizes and strides are limited to 0..2^48, got {value}"));
            }
        }
        let unpadded = (output - 1).checked_mul(stride).zip((kernel - 1).checked_mul(dilation));
        let Some(need) = unpadded.and_then(|(a, b)| a.checked_add(b)).filter(|&v| v <= LIMIT) else {
            return Err("transposed size overflows".into());
        };
        let input = need + 1 - pad.0.clamp(-LIMIT, LIMIT) - pad.1.clamp(-LIMIT, LIMIT) + extra;
        if output < 1 || input < 1 {
            return Err(format!("transposed convolution of {output} positions would produce {input}"));
        }
        let axis = Axis::new(input, kernel, stride, dilation, (pad.0, need + 1 - input - pad.0))?;
        debug_assert_eq!(axis.output, output);
        Ok(axis)
    }

    /// Number of input positions.
    pub fn input(&self) -> i64 {
        self.input
    }
    /// Number of taps.
    pub fn kernel(&self) -> i64 {
        self.kernel
    }
    /// Number of output positions.
    pub fn output(&self) -> i64 {
        self.output
    }
    /// Distance between the windows of neighbouring outputs.
    pub fn stride(&self) -> i64 {
        self.stride
    }
    /// Distance between neighbouring taps.
    pub fn dilation(&self) -> i64 {
        self.dilation
    }
    /// (low, high) padding; negative values crop.
    pub fn pad(&self) -> (i64, i64) {
        (self.pad_lo, self.pad_hi)
    }

    /// Size of the tensor that `pass` produces along this axis.
    pub fn extent(&self, pass: Pass) -> i64 {
        match pass {
            Pass::Fwd => self.output,
            Pass::Dx => self.input,
            Pass::Dw => self.kernel,
        }
    }

    /// Size of the first operand of `pass` along this axis.
    pub fn source(&self, pass: Pass) -> i64 {
        match pass {
            Pass::Fwd => self.input,
            Pass::Dx | Pass::Dw => self.output,
        }
    }

    /// The pairs of operand positions that meet at position `p` of the produced tensor.
    pub fn walk(&self, pass: Pass, p: i64) -> Walk {
        let Axis { input, kernel, output, stride, dilation, pad_lo, .. } = *self;
        match pass {
            Pass::Fwd => {
                let base = p * stride - pad_lo;
                let lo = ceil_div(-base, dilation).max(0);
                let hi = ((input - 1 - base).div_euclid(dilation) + 1).min(kernel);
                Walk { a0: base + lo * dilation, a_step: dilation, b0: lo, b_step: 1, len: (hi - lo).max(0) }
            }
            Pass::Dx => {
                let Some((first, s, d)) = self.congruent_tap(p + pad_lo) else {
                    return Walk { a0: 0, a_step: 0, b0: 0, b_step: 0, len: 0 };
                };
                let t = (p + pad_lo) / gcd(stride, dilation);
                let lo = ceil_div(t - s * (output - 1), d).max(0);
                let hi = t.div_euclid(d).min(kernel - 1);
                let k = first + ceil_div((lo - first).max(0), s) * s;
                let len = if k > hi { 0 } else { (hi - k) / s + 1 };
                Walk { a0: if len > 0 { (t - k * d) / s } else { 0 }, a_step: -d, b0: k, b_step: s, len }
            }
            Pass::Dw => {
                let offset = p * dilation - pad_lo;
                let lo = ceil_div(-offset, stride).max(0);
                let hi = ((input - 1 - offset).div_euclid(stride) + 1).min(output);
                Walk { a0: lo, a_step: 1, b0: lo * stride + offset, b_step: stride, len: (hi - lo).max(0) }
            }
        }
    }

    /// The smallest tap `k >= 0` with `k * dilation = t (mod stride)`, and stride and dilation without their
    /// common factor; taps further on that qualify follow at distance `stride / gcd`.
    fn congruent_tap(&self, t: i64) -> Option<(i64, i64, i64)> {
        let g = gcd(self.stride, self.dilation);
        if t % g != 0 {
            return None;
        }
        let (s, d, t) = (self.stride / g, self.dilation / g, t / g);
        (0..s.min(self.kernel)).find(|k| (t - k * d).rem_euclid(s) == 0).map(|k| (k, s, d))
    }

    /// Number of sweeps of `pass` (forward or input gradient): one forward, one per residue of the stride backward.
    pub fn sweep_count(&self, pass: Pass) -> i64 {
        if pass == Pass::Dx { self.stride.min(self.input) } else { 1 }
    }

    /// Sweep number `index` of `pass`; its first produced position is `index`.
    pub fn sweep(&self, pass: Pass, index: i64) -> Sweep {
        let Axis { input, kernel, output, stride, dilation, pad_lo, .. } = *self;
        if pass != Pass::Dx {
            let (out_step, tap0, tap_step) = (1, 0, 1);
            let (src_step, reach_step) = (stride, dilation);
            return Sweep {
                out0: 0,
                out_step,
                outs: output,
                src0: -pad_lo,
                src_step,
                reach_step,
                tap0,
                tap_step,
                taps: kernel,
            };
        }
        let outs = (input - index - 1).div_euclid(stride) + 1;
        let empty = Sweep {
            out0: index,
            out_step: stride,
            outs,
            src0: 0,
            src_step: 1,
            reach_step: 1,
            tap0: 0,
            tap_step: 1,
            taps: 0,
        };
        let Some((first, s, d)) = self.congruent_tap(index + pad_lo).filter(|found| found.0 < kernel) else {
            return empty;
        };
        let taps = (kernel - 1 - first) / s + 1;
        let last = first + (taps - 1) * s;
        let src0 = (index + pad_lo - last * dilation) / stride;
        Sweep { src0, reach_step: d, tap0: last, tap_step: -s, taps, ..empty }
    }
}

impl Sweep {
    /// Greatest common divisor of the two source distances: both walk the same lattice in steps of it.
    pub fn lattice(&self) -> i64 {
        gcd(self.src_step, self.reach_step)
    }

    /// The part of it that lies in a range of produced positions.
    pub fn within(&self, positions: Range<i64>) -> Sweep {
        let from = ceil_div(positions.start - self.out0, self.out_step).clamp(0, self.outs);
        let to = ceil_div(positions.end - self.out0, self.out_step).clamp(from, self.outs);
        let (out0, src0) = (self.out0 + from * self.out_step, self.src0 + from * self.src_step);
        Sweep { out0, outs: to - from, src0, ..*self }
    }

    /// The source positions from the first to the last that it meets, inside the tensor or not.
    pub fn reach(&self) -> Range<i64> {
        if self.outs == 0 || self.taps == 0 {
            return 0..0;
        }
        self.src0..self.src0 + (self.outs - 1) * self.src_step + (self.taps - 1) * self.reach_step + 1
    }

    /// The taps of produced position `j` that fall inside a source of `source` positions.
    pub fn valid_taps(&self, j: i64, source: i64) -> Range<i64> {
        self.valid_lines(j, source, self.taps)
    }

    /// The same for `lines` positions that lie as far apart as taps, of which further produced positions meet some.
    pub fn valid_lines(&self, j: i64, source: i64, lines: i64) -> Range<i64> {
        let first = self.src0 + j * self.src_step;
        let lo = ceil_div(-first, self.reach_step).clamp(0, lines);
        let hi = ((source - 1 - first).div_euclid(self.reach_step) + 1).min(lines);
        lo..hi.max(lo)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn axes() -> impl Iterator<Item = Axis> {
        let mut state = 88172645463325252u64;
        let mut next = move |lo: i64, hi: i64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            lo + (state % (hi - lo + 1) as u64) as i64
        };
        (0..20_000).filter_map(move |_| {
            Axis::new(next(1, 20), next(1, 9), next(1, 6), next(1, 6), (next(-3, 12), next(-3, 12))).ok()
        })
    }

    fn triples(axis: &Axis) -> BTreeSet<(i64, i64, i64)> {
        let mut set = BTreeSet::new();
        for o in 0..axis.output {
            for k in 0..axis.kernel {
                let i = o * axis.stride + k * axis.dilation - axis.pad_lo;
                if (0..axis.input).contains(&i) {
                    set.insert((o, k, i));
                }
            }
        }
        set
    }

    #[test]
    fn three_walks_meet_in_the_same_triples() {
        for axis in axes() {
            let want = triples(&axis);
            for pass in [Pass::Fwd, Pass::Dx, Pass::Dw] {
                let mut got = BTreeSet::new();
                for p in 0..axis.extent(pass) {
                    let w = axis.walk(pass, p);
                    for n in 0..w.len {
                        let (a, b) = (w.a0 + n * w.a_step, w.b0 + n * w.b_step);
                        assert!(got.insert(match pass {
                            Pass::Fwd => (p, b, a),
                            Pass::Dx => (a, b, p),
                            Pass::Dw => (a, p, b),
                        }));
                    }
                }
                assert_eq!(got, want, "{pass:?} {axis:?}");
            }
        }
    }

    #[test]
    fn sweeps_cover_each_position_once_with_the_same_triples() {
        for axis in axes() {
            let want = triples(&axis);
            for pass in [Pass::Fwd, Pass::Dx] {
                let (mut got, mut produced) = (BTreeSet::new(), BTreeSet::new());
                for index in 0..axis.sweep_count(pass) {
                    let s = axis.sweep(pass, index);
                    for j in 0..s.outs {
                        let out = s.out0 + j * s.out_step;
                        assert!(produced.insert(out));
                        for t in 0..s.taps {
                            let (src, k) = (s.src0 + j * s.src_step + t * s.reach_step, s.tap0 + t * s.tap_step);
                            assert!((0..axis.kernel).contains(&k));
                            if (0..axis.source(pass)).contains(&src) {
                                got.insert(if pass == Pass::Fwd { (out, k, src) } else { (src, k, out) });
                            }
                        }
                    }
                }
                assert_eq!(produced.len() as i64, axis.extent(pass));
                assert_eq!(got, want, "{pass:?} {axis:?}");
            }
        }
    }

    #[test]
    fn parts_of_a_sweep_make_up_the_whole() {
        for axis in axes() {
            for pass in [Pass::Fwd, Pass::Dx] {
                for index in 0..axis.sweep_count(pass) {
                    let whole = axis.sweep(pass, index);
                    let each = |s: Sweep| (0..s.outs).map(move |j| (s.out0 + j * s.out_step, s.src0 + j * s.src_step));
                    for cut in 0..=axis.extent(pass) {
                        let (low, high) = (whole.within(0..cut), whole.within(cut..axis.extent(pass)));
                        assert!(each(low).chain(each(high)).eq(each(whole)), "{axis:?} {pass:?} {index} {cut}");
                        assert!(each(low).all(|(out, _)| out < cut));
                        for s in [low, high] {
                            let met = each(s).flat_map(|(_, src)| (0..s.taps).map(move |t| src + t * s.reach_step));
                            let (first, last) = (met.clone().min(), met.max());
                            assert_eq!(s.reach(), first.map_or(0..0, |first| first..last.unwrap() + 1));
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn transposed_axis_keeps_the_output_size() {
        for axis in axes() {
            for extra in 0..8 {
                let pad = axis.pad();
                let made =
                    Axis::transposed(axis.output, axis.kernel, axis.stride, axis.dilation, (pad.0, pad.1), extra);
                if let Ok(made) = made {
                    assert_eq!(made.output, axis.output);
                    let natural =
                        (axis.output - 1) * axis.stride - pad.0 - pad.1 + axis.dilation * (axis.kernel - 1) + 1;
                    assert_eq!(made.input, natural + extra);
                }
            }
        }
    }

    #[test]
    fn bad_axes_are_refused() {
        for (i, k, s, d, p) in [
            (5, 0, 1, 1, 0),
            (5, 1, 0, 1, 0),
            (5, 1, 1, 0, 0),
            (-1, 1, 1, 1, 0),
            (2, 3, 1, 1, 0),
            (5, 3, 1, i64::MAX, 0),
            (i64::MAX, 1, 1, 1, 0),
            (5, 1, 1, 1, i64::MIN),
        ] {
            assert!(Axis::new(i, k, s, d, (p, p)).is_err());
        }
    }
}
