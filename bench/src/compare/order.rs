//! Who is measured when. What a broker leaves behind, in the page cache, on the device, in the host's own budget of CPU, meets the one
//! after it; so each comes at each place, and after each other one, as equally often as can be (E. J. Williams, "Experimental
//! designs balanced for the estimation of residual effects of treatments", 1949).

use std::collections::BTreeMap;

/// The order within each round. Balanced if `rounds` is a multiple of [`cycle`].
pub fn balanced<T: Copy + Ord>(all: &[T], rounds: usize) -> Vec<Vec<T>> {
    let design = design(all);
    let mut left: Vec<Vec<T>> = Vec::new();
    let mut counts = Counts::default();
    let mut orders: Vec<Vec<T>> = Vec::new();
    for _ in 0..rounds {
        if left.is_empty() {
            left = design.clone();
        }
        let last = orders.last().and_then(|order| order.last()).copied();
        // Of those that are as good, the first.
        let best = (0..left.len()).min_by_key(|at| counts.with(last, &left[*at]).unevenness());
        let Some(best) = best else { break };
        let order = left.remove(best);
        counts = counts.with(last, &order);
        orders.push(order);
    }
    orders
}

/// Rounds in which so many are balanced.
pub fn cycle(many: usize) -> usize {
    if many.is_multiple_of(2) || many == 1 { many } else { 2 * many }
}

/// Whether in the orders everyone comes equally often at each place, and after each other one.
pub fn is_balanced<T: Copy + Ord>(orders: &[Vec<T>]) -> bool {
    let counts = orders.iter().fold(Counts::default(), |counts, order| counts.with(None, order));
    let equal = |counts: Vec<usize>, all: usize| {
        counts.len() == all && counts.windows(2).all(|pair| pair[0] == pair[1])
    };
    let many = orders.first().map_or(0, Vec::len);
    equal(counts.places.into_values().collect(), many * many)
        && equal(counts.after.into_values().collect(), many * many.saturating_sub(1))
}

/// Rows in which each is at each place and after each other one equally often: as many as there are, or twice that.
fn design<T: Copy>(all: &[T]) -> Vec<Vec<T>> {
    let many = all.len();
    // 0, 1, n-1, 2, n-2, ...: the steps between neighbours are all different.
    let zigzag = |at: usize| if at % 2 == 1 { at.div_ceil(2) } else { (many - at / 2) % many };
    let row = |shift: usize| (0..many).map(|at| all[(zigzag(at) + shift) % many]).collect::<Vec<T>>();
    let rows: Vec<Vec<T>> = (0..many).map(row).collect();
    match many % 2 {
        // Of an odd number, one direction alone leaves half of the neighbours out.
        1 if many > 1 => {
            let reversed = |row: &Vec<T>| row.iter().rev().copied().collect();
            let reversed: Vec<Vec<T>> = rows.iter().map(reversed).collect();
            rows.into_iter().chain(reversed).collect()
        }
        _ => rows,
    }
}

/// How often each was at each place, and each directly after each other one.
#[derive(Clone)]
struct Counts<T> {
    places: BTreeMap<(T, usize), usize>,
    after: BTreeMap<(T, T), usize>,
}

impl<T> Default for Counts<T> {
    fn default() -> Self {
        Counts { places: BTreeMap::new(), after: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Counts<T> {
    /// With one more round, which comes after `last`.
    fn with(&self, last: Option<T>, order: &[T]) -> Counts<T> {
        let mut counts = self.clone();
        let mut last = last;
        for (place, one) in order.iter().enumerate() {
            *counts.places.entry((*one, place)).or_default() += 1;
            if let Some(last) = last.filter(|last| last != one) {
                *counts.after.entry((last, *one)).or_default() += 1;
            }
            last = Some(*one);
        }
        counts
    }

    /// Least where they are equal: places count first.
    fn unevenness(&self) -> (usize, usize) {
        let squares = |counts: &mut dyn Iterator<Item = &usize>| counts.map(|count| count * count).sum();
        (squares(&mut self.places.values()), squares(&mut self.after.values()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_take_turns_at_being_first() {
        assert_eq!(balanced(&['a', 'b'], 5).concat().iter().collect::<String>(), "abbaabbaab");
        assert_eq!(balanced(&['a'], 2), [['a'], ['a']]);
        assert!(balanced::<char>(&[], 2).concat().is_empty());
    }

    #[test]
    fn each_is_at_each_place_and_after_each_other_equally_often() {
        for many in 2..=6 {
            let all: Vec<usize> = (0..many).collect();
            let full = cycle(many);
            for rounds in [full, 2 * full] {
                let orders = balanced(&all, rounds);
                assert!(is_balanced(&orders), "{many} in {rounds}: {orders:?}");
            }
            // Every round has all of them once.
            for mut order in balanced(&all, full + 1) {
                order.sort_unstable();
                assert_eq!(order, all);
            }
        }
    }

    #[test]
    fn a_part_of_the_design_is_as_even_as_it_can_be() {
        for many in 2..=6usize {
            let all: Vec<usize> = (0..many).collect();
            for rounds in 1..=4 * many {
                let orders = balanced(&all, rounds);
                for one in 0..many {
                    let at = |place: usize| orders.iter().filter(|order| order[place] == one).count();
                    let counts: Vec<usize> = (0..many).map(at).collect();
                    let (min, max) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
                    assert!(max - min <= 1, "{many} in {rounds}: {one} at {counts:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_balanced_is_not_called_so() {
        // What is to be told of three rounds with two, and of taking turns from the left with four.
        assert!(!is_balanced(&balanced(&['a', 'b'], 3)));
        let rotated = [[0, 1, 2, 3], [1, 2, 3, 0], [2, 3, 0, 1], [3, 0, 1, 2]].map(Vec::from);
        assert!(!is_balanced(&rotated));
        assert!(is_balanced(&[vec!['a']]));
    }
}
