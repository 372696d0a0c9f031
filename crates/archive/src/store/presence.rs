//! Which segments of a cluster's own history an archive holds: about a byte a segment, so that an archive of any size fits.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// So many places share an allocation.
const BLOCK: usize = 4096;

/// A set of segments by their place in WAL, each with a mask of the forms that it is stored in.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Presence {
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Presence {
    pub fn is_empty(&self) -> bool {
        self.iter(0..=u64::MAX).next().is_none()
    }

    /// The forms that segment `number` is stored in; 0 for none.
    pub fn get(&self, number: u64) -> u8 {
        let (block, at) = place(number);
        self.blocks
            .get(&block)
            .and_then(|block| block.get(at))
            .copied()
            .unwrap_or(0)
    }

    /// Adds a form of a segment.
    pub fn add(&mut self, number: u64, form: u8) {
        let (block, at) = place(number);
        let block = self
            .blocks
            .entry(block)
            .or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
        if let Some(forms) = block.get_mut(at) {
            *forms |= form;
        }
    }

    /// Makes the numbers in `range` that `concerned` picks what they are in `other`; says whether that changed any.
    pub fn replace(&mut self, range: RangeInclusive<u64>, concerned: impl Fn(u64) -> bool, other: &Self) -> bool {
        let gone: Vec<u64> = self
            .iter(range.clone())
            .filter(|number| concerned(*number) && other.get(*number) == 0)
            .collect();
        let mut changed = !gone.is_empty();
        for number in gone {
            self.set(number, 0);
        }
        for number in other.iter(range).filter(|number| concerned(*number)) {
            changed |= self.set(number, other.get(number)) != other.get(number);
        }
        changed
    }

    /// The numbers in a range that are there, ascending.
    pub fn iter(&self, range: RangeInclusive<u64>) -> impl Iterator<Item = u64> + '_ {
        let blocks = range.start() / BLOCK as u64..=range.end() / BLOCK as u64;
        self.blocks
            .range(blocks)
            .flat_map(|(block, forms)| {
                let first = block.saturating_mul(BLOCK as u64);
                let numbers = first..=first.saturating_add(BLOCK as u64 - 1);
                numbers.zip(forms.iter()).filter(|(_, forms)| **forms != 0)
            })
            .map(|(number, _)| number)
            .filter(move |number| range.contains(number))
    }

    /// What it occupies, roughly.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.blocks.len() * (BLOCK + size_of::<(u64, Box<[u8]>)>())
    }

    /// Sets the forms of a segment, and gives what they were.
    fn set(&mut self, number: u64, forms: u8) -> u8 {
        let (block, at) = place(number);
        let block = self
            .blocks
            .entry(block)
            .or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
        block.get_mut(at).map_or(0, |place| std::mem::replace(place, forms))
    }
}

const fn place(number: u64) -> (u64, usize) {
    (number / BLOCK as u64, (number % BLOCK as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_there_in_order_and_nothing_else() {
        let mut presence = Presence::default();
        for number in [9000, 3, 4095, 4096, u64::MAX] {
            presence.add(number, 1);
        }
        presence.add(3, 4);
        assert_eq!(presence.get(3), 5);
        assert_eq!(presence.get(4), 0);
        assert_eq!(
            presence.iter(0..=u64::MAX).collect::<Vec<_>>(),
            [3, 4095, 4096, 9000, u64::MAX]
        );
        assert_eq!(presence.iter(4..=4096).collect::<Vec<_>>(), [4095, 4096]);
    }

    #[test]
    fn a_part_is_replaced_and_the_rest_stays() {
        let mut presence = Presence::default();
        let mut other = Presence::default();
        for number in 0..20 {
            presence.add(number, 1);
        }
        other.add(5, 1);
        other.add(7, 2);
        other.add(19, 2);
        assert!(presence.replace(5..=9, |number| number != 9, &other));
        assert_eq!(
            presence.iter(0..=30).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
        );
        assert_eq!((presence.get(7), presence.get(19)), (2, 1));
        assert!(!presence.replace(5..=9, |number| number != 9, &other));
    }
}
