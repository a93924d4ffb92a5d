//! Building the kernel. Four elements are added at a time, so that a grid point is loaded and stored once for them.

use super::{Block, Profiles, profile_lanes};
use striate_core::Spacings;
use striate_simd::lanes::{LANES, Lane, Real, add_product, gather, zip};
use striate_simd::{Maths, Simd, Task};

/// Elements added at a time.
pub const GROUP: usize = 4;

/// Builds a block.
pub struct Build<'a, A>(pub Block<'a, A>);

impl<A: Real, I: Maths<A>> Task<I> for Build<'_, A> {
    type Out = ();
    #[inline(always)]
    fn call(self, isa: I) {
        let Block { spacings: s, given, first, out, scratch } = self.0;
        let live = (s.filters - first).min(LANES);
        let (grid, scratch) = scratch.split_at_mut(s.volume());
        let mut profiles: Vec<Profiles<'_, A>> =
            scratch.chunks_exact_mut(profile_lanes(s)).take(GROUP).map(|lanes| Profiles::new(s, lanes)).collect();
        let profiles: &mut [Profiles<'_, A>; GROUP] = (&mut profiles[..]).try_into().expect("scratch for a group");
        grid.fill([A::ZERO; LANES]);
        for start in (0..s.elements).step_by(GROUP) {
            // Where elements run out, the last one is added again with weight zero.
            let mut scaled = [[A::ZERO; LANES]; GROUP];
            for (index, (scaled, profiles)) in scaled.iter_mut().zip(&mut *profiles).enumerate() {
                let element = (start + index).min(s.elements - 1);
                profiles.fill::<I, false>(isa, s, given.moving, (first, live), element);
                if start + index < s.elements {
                    let weight = gather(given.weight, first * s.elements + element, s.elements, live);
                    *scaled = zip(&weight, &profiles.total(s), |w, total| w / total);
                }
            }
            add(isa, s, (&scaled, profiles), grid);
        }
        for (lane, filter) in out.chunks_exact_mut(s.volume()).enumerate() {
            for (to, from) in filter.iter_mut().zip(&*grid) {
                *to = from[lane];
            }
        }
    }
}

/// Adds a group of elements to every point of the grid.
#[inline(always)]
fn add<A: Real, I: Simd<A>>(
    isa: I,
    s: &Spacings,
    (scaled, profiles): (&[Lane<A>; GROUP], &[Profiles<'_, A>; GROUP]),
    grid: &mut [Lane<A>],
) {
    let (rows, columns) = (s.size[0], s.size[0] + s.size[1]);
    let along: [&[Lane<A>]; GROUP] = [0, 1, 2, 3].map(|index| &profiles[index].value[columns..][..s.size[2]]);
    for (line, points) in grid.chunks_exact_mut(s.size[2]).enumerate() {
        let (plane, row) = (line / s.size[1], rows + line % s.size[1]);
        let mut factors = *scaled;
        for (factor, profiles) in factors.iter_mut().zip(profiles) {
            *factor = zip(factor, &profiles.value[plane], |a, b| a * b);
            *factor = zip(factor, &profiles.value[row], |a, b| a * b);
        }
        for (t, point) in points.iter_mut().enumerate() {
            let mut sum = *point;
            for (factor, along) in factors.iter().zip(&along) {
                add_product(isa, &mut sum, factor, &along[t]);
            }
            *point = sum;
        }
    }
}
