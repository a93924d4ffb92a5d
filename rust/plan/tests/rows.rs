//! Every row of the table against the reference: small integers, whose sums are exact in every type, must come out
//! equal, from a dirty workspace, on any number of threads.

use striate_core::geometry::Channels;
use striate_core::view::{Tensor, TensorMut};
use striate_core::{
    Accumulator, Axis, Bf16, DType, Device, F16, Geometry, Kernel, Layout, Operands, Pass, Pool, Problem, Role, Scalar,
};

struct Threads(usize);

impl Pool for Threads {
    fn width(&self) -> usize {
        self.0
    }
    fn run(&self, slots: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for slot in 0..slots {
                scope.spawn(move || body(slot));
            }
        });
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self, lo: i64, hi: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        lo + (self.0 % (hi - lo + 1) as u64) as i64
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.next(0, from.len() as i64 - 1) as usize]
    }

    fn geometry(&mut self) -> Option<Geometry> {
        let rank = self.next(1, 3) as usize;
        let large = self.next(0, 5) == 0;
        let axes: Result<Vec<Axis>, String> = (0..rank)
            .map(|a| {
                // Sizes around vector and tile edges along the last axis, kernels up to wider than the input.
                let most = [40, 20, 9][rank - 1] * if large && a + 1 == rank { 8 } else { 1 };
                let kernel = if self.next(0, 4) == 0 { self.next(1, 20) } else { self.next(1, 7) };
                let pad = (self.next(-2, kernel), self.next(-2, kernel));
                Axis::new(self.next(1, most), kernel, self.pick(&[1, 1, 1, 2, 3, 5]), self.pick(&[1, 1, 2, 3, 4]), pad)
            })
            .collect();
        let c_in = self.pick(&[1, 1, 1, 2, 3]);
        let most = if c_in == 1 { 40 } else { 4 };
        let channels = Channels { groups: self.next(1, most), c_in, c_out: self.pick(&[1, 1, 1, 2, 3]) };
        Geometry::new(self.next(0, 3), channels, &axes.ok()?).ok()
    }
}

fn produce<S: Scalar, W: Scalar, R: Scalar>(
    row: &Kernel,
    problem: &Problem,
    (first, second, bias): (&[f64], &[f64], Option<&[f64]>),
    threads: usize,
) -> Vec<f64> {
    let [a, b, c] = Role::of(problem.pass);
    let stored = |v: &[f64]| v.iter().map(|&v| S::narrow(S::Acc::from_f64(v))).collect::<Vec<S>>();
    let weighed = |v: &[f64]| v.iter().map(|&v| W::narrow(W::Acc::from_f64(v))).collect::<Vec<W>>();
    let first = stored(first);
    let (second_s, second_w) = if b == Role::Weight { (vec![], weighed(second)) } else { (stored(second), vec![]) };
    let bias = bias.map(weighed);
    let mut out = vec![R::narrow(R::Acc::from_f64(f64::NAN)); problem.elements(c)];
    let dims = |role| (problem.geometry.dims(role), problem.strides(role));
    let second = if b == Role::Weight {
        Tensor::new(&second_w, dims(b).0, dims(b).1)
    } else {
        Tensor::new(&second_s, dims(b).0, dims(b).1)
    };
    let bias = bias.as_ref().map(|v| Tensor::new(v, [1, 1, 1, 1, 1, v.len()], [1; 6]));
    let program = (row.compile)(problem);
    let pool = Threads(threads);
    // All ones is a NaN in every float type.
    let mut workspace = vec![0xffu8; program.workspace(threads)];
    let operands = Operands {
        first: Tensor::new(&first, dims(a).0, dims(a).1),
        second,
        bias,
        out: TensorMut::new(&mut out, dims(c).0, dims(c).1),
        workspace: &mut workspace,
    };
    program.run(operands, &pool);
    out.into_iter().map(|v| v.widen().to_f64()).collect()
}

fn run(row: &Kernel, problem: &Problem, data: (&[f64], &[f64], Option<&[f64]>), threads: usize) -> Vec<f64> {
    match (problem.dtype, problem.weight_dtype, problem.pass) {
        (DType::F32, ..) => produce::<f32, f32, f32>(row, problem, data, threads),
        (DType::F64, ..) => produce::<f64, f64, f64>(row, problem, data, threads),
        (DType::Bf16, DType::F32, Pass::Dw) => produce::<Bf16, f32, f32>(row, problem, data, threads),
        (DType::F16, DType::F32, Pass::Dw) => produce::<F16, f32, f32>(row, problem, data, threads),
        (DType::Bf16, DType::F32, _) => produce::<Bf16, f32, Bf16>(row, problem, data, threads),
        (DType::F16, DType::F32, _) => produce::<F16, f32, F16>(row, problem, data, threads),
        (DType::Bf16, ..) => produce::<Bf16, Bf16, Bf16>(row, problem, data, threads),
        (DType::F16, ..) => produce::<F16, F16, F16>(row, problem, data, threads),
        (DType::I32 | DType::I64, ..) => unreachable!("integers are not convolved"),
    }
}

#[test]
fn every_row_equals_the_reference_on_integers() {
    let table = striate_plan::table();
    let reference = *table.last().unwrap();
    let mut random = Random(88172645463325252 ^ std::env::var("STRIATE_SEED").map_or(0, |s| s.parse().unwrap()));
    let rounds = std::env::var("STRIATE_ROUNDS").map_or(600, |s| s.parse().unwrap());
    let mut ran = std::collections::BTreeMap::new();
    for _ in 0..rounds {
        let Some(geometry) = random.geometry() else { continue };
        let dtype = random.pick(&DType::ALL);
        let weight_dtype = if random.next(0, 1) == 0 { dtype } else { dtype.accumulator() };
        let layout = random.pick(&[Layout::Nchw, Layout::Nhwc]);
        for pass in [Pass::Fwd, Pass::Dx, Pass::Dw] {
            let problem = Problem { pass, dtype, weight_dtype, layout, device: Device::Cpu, tf32: false, geometry };
            let [a, b, c] = Role::of(pass);
            // Small enough that even bf16's eight bits hold every sum that a forward pass of few taps can make.
            let most = if matches!(dtype, DType::F16 | DType::Bf16) { 1 } else { 3 };
            let mut fill =
                |role| (0..problem.elements(role)).map(|_| random.next(-most, most) as f64).collect::<Vec<_>>();
            let (first, second) = (fill(a), fill(b));
            let dims = geometry.dims(c);
            let bias: Vec<f64> = (0..dims[1] * dims[2]).map(|i| (i % 5) as f64 - 2.0).collect();
            let bias = (pass != Pass::Dw && layout == Layout::Nchw).then_some(&bias[..]);
            let want = run(reference, &problem, (&first, &second, bias), 1);
            for row in &table[..table.len() - 1] {
                if !(row.available)() || (row.supports)(&problem).is_err() {
                    continue;
                }
                for threads in [1, 3] {
                    let got = run(row, &problem, (&first, &second, bias), threads);
                    let at = got.iter().zip(&want).position(|(g, w)| g != w);
                    assert!(
                        at.is_none(),
                        "{} on {threads} threads: {problem}: [{at:?}] {:?} is not {:?}",
                        row.name,
                        got[at.unwrap()],
                        want[at.unwrap()]
                    );
                }
                *ran.entry((row.name, pass as u8)).or_insert(0) += 1;
            }
        }
    }
    println!("{ran:?}");
    let available = table[..table.len() - 1].iter().filter(|row| (row.available)());
    let passes: usize = available.map(|row| row.passes.len()).sum();
    assert!(ran.len() == passes && ran.values().all(|&n| n > rounds / 60), "too few problems ran: {ran:?}");
}
