//! Times one problem line on one thread: `cargo run --release --example time -- "conv fwd f32 ..." [row filter]`.
//! Times are of the processor, not of the clock on the wall, so that a busy machine disturbs
//! less. Prints the row, the least and median time, and the multiply-add rate; for work on kernels, not for claims.

use cpu_time::ThreadTime;
use std::time::Instant;
use striate_core::view::{Tensor, TensorMut};
use striate_core::{Operands, Problem, Role, Scalar, Serial, with_scalar};

fn main() {
    let mut args = std::env::args().skip(1);
    let problem: Problem = args.next().expect("a problem line").parse().expect("a valid problem line");
    striate_plan::set_filter(args.next().as_deref()).expect("a valid filter");
    let plan = striate_plan::plan(&problem).expect("a row that takes it");
    let [a, b, c] = Role::of(problem.pass);
    let mut workspace = vec![0u8; plan.program.workspace(1)];
    let dims = |role| (problem.geometry.dims(role), problem.strides(role));
    with_scalar!(problem.dtype_of(a), A => with_scalar!(problem.dtype_of(b), B => with_scalar!(problem.dtype_of(c), C => {
        let first = vec![A::narrow(<A as Scalar>::Acc::from(1u8)); problem.elements(a)];
        let second = vec![B::narrow(<B as Scalar>::Acc::from(1u8)); problem.elements(b)];
        let mut out = vec![C::default(); problem.elements(c)];
        let mut times = Vec::new();
        let begin = Instant::now();
        while begin.elapsed().as_secs_f64() < 1.0 || times.len() < 5 {
            let start = ThreadTime::now();
            plan.program.run(
                Operands {
                    first: Tensor::new(&first, dims(a).0, dims(a).1),
                    second: Tensor::new(&second, dims(b).0, dims(b).1),
                    bias: None,
                    out: TensorMut::new(&mut out, dims(c).0, dims(c).1),
                    workspace: &mut workspace,
                },
                &Serial,
            );
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let rate = 2.0 * problem.geometry.macs() / least / 1e9;
        println!("{problem}\n  {:32} min {:.3} ms  median {:.3} ms  {rate:.1} GFLOP/s", plan.row.name, least * 1e3, median * 1e3);
    })));
}
