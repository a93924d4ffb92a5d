//! The gradients of weight, position and SIG, in one walk over the grid per element.
//!
//! With Z the normaliser, A the sum over the grid of upstream x profile, and T the same sum with the profile along
//! the axis of a parameter replaced by its derivative, the gradients are A / Z for the weight W and
//! W / Z (T - A / Z x the derivative of Z) for the parameter.

use super::{Block, Profiles, profile_lanes};
use striate_core::Spacings;
use striate_core::spacings::Profile;
use striate_simd::lanes::{LANES, Lane, Real, add_product, gather, zip};
use striate_simd::{Maths, Simd, Task};

/// Differentiates a block.
pub struct Differentiate<'a, A>(pub Block<'a, A>);

impl<A: Real, I: Maths<A>> Task<I> for Differentiate<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { spacings: s, given, first, out, scratch } = self.0;
        let live = (s.filters - first).min(LANES);
        let volume = s.volume();
        let (grid, scratch) = scratch.split_at_mut(volume);
        let mut profiles = Profiles::new(s, &mut scratch[..profile_lanes(s)]);
        for (point, lanes) in grid.iter_mut().enumerate() {
            *lanes = gather(given.upstream, first * volume + point, volume, live);
        }
        let each = s.gradients();
        for element in 0..s.elements {
            profiles.fill::<I, true>(isa, s, given.moving, (first, live), element);
            let (sum, by) = match s.spread {
                true => contract::<A, I, true>(isa, s, &profiles, grid),
                false => contract::<A, I, false>(isa, s, &profiles, grid),
            };
            let total = profiles.total(s);
            let weight = gather(given.weight, first * s.elements + element, s.elements, live);
            let (scaled, mean) = (zip(&weight, &total, |a, b| a / b), zip(&sum, &total, |a, b| a / b));
            let mut write = |kind: usize, lanes: &Lane<A>| {
                for (lane, filter) in out.chunks_exact_mut(each * s.elements).enumerate() {
                    filter[kind * s.elements + element] = lanes[lane];
                }
            };
            write(0, &mean);
            for row in 0..s.rank {
                for kind in 0..(each - 1) / s.rank {
                    let by = moved(s, &profiles, (s.axes[row], kind), &by, &mean);
                    write(1 + kind * s.rank + row, &zip(&scaled, &by, |a, b| a * b));
                }
            }
        }
    }
}

/// T - A / Z x the derivative of Z, for the position (0) or the SIG (1) along an axis.
#[inline(always)]
fn moved<A: Real>(
    s: &Spacings,
    profiles: &Profiles<'_, A>,
    (axis, kind): (usize, usize),
    by: &[[Lane<A>; 2]; 3],
    mean: &Lane<A>,
) -> Lane<A> {
    if s.profile == Profile::Scatter {
        return by[axis][kind];
    }
    let mut slope = profiles.sums[axis][1 + kind];
    for other in (0..3).filter(|&other| other != axis) {
        slope = zip(&slope, &profiles.sums[other][0], |a, b| a * b);
    }
    let drift = zip(mean, &slope, |a, b| a * b);
    zip(&by[axis][kind], &drift, |a, b| a - b)
}

/// The sums over the grid of upstream x profile, and with the profile of each axis replaced by its derivative by
/// position and, where there is `SPREAD`, by SIG.
#[inline(always)]
fn contract<A: Real, I: Simd<A>, const SPREAD: bool>(
    isa: I,
    s: &Spacings,
    profiles: &Profiles<'_, A>,
    grid: &[Lane<A>],
) -> (Lane<A>, [[Lane<A>; 2]; 3]) {
    let zero = [A::ZERO; LANES];
    let (value, position, spread) = (&*profiles.value, &*profiles.position, &*profiles.spread);
    let (rows, columns) = (s.size[0], s.size[0] + s.size[1]);
    let (mut sum, mut by) = (zero, [[zero; 2]; 3]);
    for plane in 0..s.size[0] {
        let (mut in_plane, mut by_row, mut by_column) = (zero, [zero; 2], [zero; 2]);
        for row in 0..s.size[1] {
            let points = &grid[(plane * s.size[1] + row) * s.size[2]..][..s.size[2]];
            let (mut a, mut b, mut c) = (zero, zero, zero);
            for (t, point) in points.iter().enumerate() {
                add_product(isa, &mut a, point, &value[columns + t]);
                add_product(isa, &mut b, point, &position[columns + t]);
                if SPREAD {
                    add_product(isa, &mut c, point, &spread[columns + t]);
                }
            }
            let at = rows + row;
            add_product(isa, &mut in_plane, &value[at], &a);
            add_product(isa, &mut by_row[0], &position[at], &a);
            add_product(isa, &mut by_row[1], &spread[at], &a);
            add_product(isa, &mut by_column[0], &value[at], &b);
            add_product(isa, &mut by_column[1], &value[at], &c);
        }
        add_product(isa, &mut sum, &value[plane], &in_plane);
        add_product(isa, &mut by[0][0], &position[plane], &in_plane);
        add_product(isa, &mut by[0][1], &spread[plane], &in_plane);
        for kind in 0..2 {
            add_product(isa, &mut by[1][kind], &value[plane], &by_row[kind]);
            add_product(isa, &mut by[2][kind], &value[plane], &by_column[kind]);
        }
    }
    (sum, by)
}
