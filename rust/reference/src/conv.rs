//! Convolution of any rank, stride, dilation, padding and grouping, its gradients and its transpose: one
//! contraction over the three walks of [`striate_core::axis`].

use striate_core::pool::{Part, Pool, for_each_part};
use striate_core::view::{View, ViewMut};
use striate_core::{Accumulator, Kernel, Layout, Operands, Pass, Problem, Program, Scalar, Walk, with_scalar};

/// The row of the kernel table.
pub const ROW: Kernel = Kernel {
    name: "reference",
    op: "conv",
    passes: &[Pass::Fwd, Pass::Dx, Pass::Dw],
    layouts: &[Layout::Nchw, Layout::Nhwc],
    isa: "portable",
    available: || true,
    supports: |_| Ok(()),
    compile: |problem| Box::new(Definition(*problem)),
    note: "the definition, summed in f64; takes everything, slowly",
};

struct Definition(Problem);

impl Program for Definition {
    fn workspace(&self, _width: usize) -> usize {
        0
    }

    fn run(&self, operands: Operands<'_>, pool: &dyn Pool) {
        let Operands { first, second, bias, out, .. } = operands;
        let bias: Option<Vec<f64>> = bias
            .map(|b| with_scalar!(b.dtype(), W => b.typed::<W>().data.iter().map(|v| v.widen().to_f64()).collect()));
        with_scalar!(first.dtype(), S => with_scalar!(second.dtype(), W => with_scalar!(out.dtype(), R => {
            contract::<S, W, R>(&self.0, (first.typed(), second.typed(), bias.as_deref()), out.typed(), pool)
        })));
    }
}

/// A tensor's six indices from its position in memory, for any dense order.
struct Decoder {
    order: [usize; 6],
    dims: [usize; 6],
    strides: [usize; 6],
}

impl Decoder {
    fn new(dims: [usize; 6], strides: [usize; 6]) -> Decoder {
        let mut order = [0, 1, 2, 3, 4, 5];
        // Unit dimensions may share a stride with a real one; they must not claim a part of its index.
        order.sort_by_key(|&i| (std::cmp::Reverse(strides[i]), dims[i]));
        Decoder { order, dims, strides }
    }

    fn decode(&self, mut position: usize) -> [usize; 6] {
        let mut at = [0; 6];
        for &i in self.order.iter().filter(|&&i| self.dims[i] > 1) {
            at[i] = position / self.strides[i];
            position %= self.strides[i];
        }
        at
    }
}

/// First operand, second operand and bias.
type Sources<'a, S, W> = (View<'a, S>, View<'a, W>, Option<&'a [f64]>);

fn contract<S: Scalar, W: Scalar, R: Scalar>(
    problem: &Problem,
    (first, second, bias): Sources<'_, S, W>,
    out: ViewMut<'_, R>,
    pool: &dyn Pool,
) {
    let (pass, g) = (problem.pass, &problem.geometry);
    let summed = [g.c_in(), g.c_out(), g.batch()][pass as usize] as usize;
    let walks: Vec<Vec<Walk>> =
        g.axes().iter().map(|axis| (0..axis.extent(pass)).map(|p| axis.walk(pass, p)).collect()).collect();
    let decoder = Decoder::new(out.dims, out.strides);
    let step = 256;
    let bounds: Vec<usize> = (0..=out.data.len().div_ceil(step)).map(|i| (i * step).min(out.data.len())).collect();
    for_each_part(pool, (out.data, &bounds), &mut [], &|part: Part<'_, R, u8>| {
        for (i, slot) in part.out.iter_mut().enumerate() {
            let [p, group, q, c0, c1, c2] = decoder.decode(bounds[part.index] + i);
            let w = [&walks[0][c0], &walks[1][c1], &walks[2][c2]];
            let mut sum = bias.map_or(0.0, |b| b[group * out.dims[2] + q]);
            for r in 0..summed {
                // Kept and summed channel-like indices: (n, c_out; c_in), (n, c_in; c_out), (c_out, c_in; n).
                let ([a0, a2], [b0, b2]) = match pass {
                    Pass::Fwd => ([p, r], [q, r]),
                    Pass::Dx => ([p, r], [r, q]),
                    Pass::Dw => ([r, p], [r, q]),
                };
                for (n0, n1, n2) in steps(w) {
                    let [x0, x1, x2] =
                        [(w[0], n0), (w[1], n1), (w[2], n2)].map(|(w, n)| (w.a0 + n * w.a_step) as usize);
                    let [y0, y1, y2] =
                        [(w[0], n0), (w[1], n1), (w[2], n2)].map(|(w, n)| (w.b0 + n * w.b_step) as usize);
                    sum += first.at([a0, group, a2, x0, x1, x2]).widen().to_f64()
                        * second.at([b0, group, b2, y0, y1, y2]).widen().to_f64();
                }
            }
            *slot = R::narrow(R::Acc::from_f64(sum));
        }
    });
}

fn steps(w: [&Walk; 3]) -> impl Iterator<Item = (i64, i64, i64)> {
    let [l0, l1, l2] = w.map(|w| w.len);
    (0..l0).flat_map(move |a| (0..l1).flat_map(move |b| (0..l2).map(move |c| (a, b, c))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate_core::geometry::Channels;
    use striate_core::{Axis, DType, Device, Geometry, Role, Serial, Tensor, TensorMut};

    /// The definition, literally: every output, every tap, every channel pair.
    fn literal(problem: &Problem, data: &[Vec<f64>; 3]) -> Vec<f64> {
        let g = &problem.geometry;
        let [input, weight, output] = [Role::Input, Role::Weight, Role::Output].map(|role| problem.strides(role));
        let offset = |s: &[usize; 6], at: [usize; 6]| s.iter().zip(at).map(|(s, i)| s * i).sum::<usize>();
        let produced = Role::of(problem.pass)[2];
        let mut made = vec![0.0; problem.elements(produced)];
        let [batch, groups, c_out, o0, o1, o2] = g.dims(Role::Output);
        let [_, _, c_in, k0, k1, k2] = g.dims(Role::Weight);
        let sizes = [batch, groups, c_in, c_out, o0, o1, o2, k0, k1, k2];
        for flat in 0..sizes.iter().product() {
            let mut rest = flat;
            let [n, group, ci, co, p0, p1, p2, t0, t1, t2] = sizes.map(|size| {
                let at = rest % size;
                rest /= size;
                at
            });
            let place = |axis: usize, o: usize, k: usize| {
                let a = g.axes()[axis];
                o as i64 * a.stride() + k as i64 * a.dilation() - a.pad().0
            };
            let i = [place(0, p0, t0), place(1, p1, t1), place(2, p2, t2)];
            if i.iter().zip(g.axes()).any(|(&i, axis)| i < 0 || i >= axis.input()) {
                continue;
            }
            let x = offset(&input, [n, group, ci, i[0] as usize, i[1] as usize, i[2] as usize]);
            let w = offset(&weight, [co, group, ci, t0, t1, t2]);
            let y = offset(&output, [n, group, co, p0, p1, p2]);
            match problem.pass {
                Pass::Fwd => made[y] += data[0][x] * data[1][w],
                Pass::Dx => made[x] += data[2][y] * data[1][w],
                Pass::Dw => made[w] += data[2][y] * data[0][x],
            }
        }
        made
    }

    #[test]
    fn all_passes_equal_the_literal_sum() {
        let mut state = 88172645463325252u64;
        let mut next = move |lo: i64, hi: i64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            lo + (state % (hi - lo + 1) as u64) as i64
        };
        let mut done = 0;
        while done < 200 {
            let rank = next(1, 3);
            let axes: Result<Vec<Axis>, String> = (0..rank)
                .map(|_| Axis::new(next(1, 6), next(1, 4), next(1, 4), next(1, 3), (next(-1, 4), next(-1, 4))))
                .collect();
            let Ok(axes) = axes else { continue };
            let channels = Channels { groups: next(1, 2), c_in: next(1, 2), c_out: next(1, 2) };
            let geometry = Geometry::new(next(1, 2), channels, &axes).unwrap();
            let layout = if next(0, 1) == 0 { Layout::Nchw } else { Layout::Nhwc };
            let (pass, dtype, device) = (Pass::Fwd, DType::F64, Device::Cpu);
            let problem = Problem { pass, dtype, weight_dtype: dtype, layout, device, tf32: false, geometry };
            let data = [Role::Input, Role::Weight, Role::Output]
                .map(|role| (0..problem.elements(role)).map(|_| next(-3, 3) as f64).collect::<Vec<f64>>());
            for pass in [Pass::Fwd, Pass::Dx, Pass::Dw] {
                let problem = Problem { pass, ..problem };
                let [a, b, c] = Role::of(pass);
                let mut got = vec![f64::NAN; problem.elements(c)];
                let tensor =
                    |role: Role| Tensor::new(&data[role as usize], problem.geometry.dims(role), problem.strides(role));
                let out = TensorMut::new(&mut got, problem.geometry.dims(c), problem.strides(c));
                let operands = Operands { first: tensor(a), second: tensor(b), bias: None, out, workspace: &mut [] };
                (ROW.compile)(&problem).run(operands, &Serial);
                assert_eq!(got, literal(&problem, &data), "{problem}");
            }
            done += 1;
        }
    }
}
