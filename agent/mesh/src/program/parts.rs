//! A list of which a changed copy shares all but what was changed: how [`super::Program`] has its clusters, and
//! [`super::PodTable`] its buckets.

use std::ops::Index;
use std::sync::Arc;

/// Items that are copied when one of them changes. A clone takes a pointer for each part: of 40,000 clusters some 300,
/// so that the two cost about the same.
pub const PART: usize = 128;

/// A list in parts of [`PART`] items, of which the last may have fewer. A clone shares the parts.
#[derive(Clone, Debug)]
pub struct Parts<T> {
    parts: Box<[Arc<[T]>]>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { parts: Box::default() }
    }
}

impl<T> Parts<T> {
    /// How many items there are.
    pub fn len(&self) -> usize {
        self.parts.last().map_or(0, |last| (self.parts.len() - 1) * PART + last.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The item at a place.
    pub fn get(&self, place: usize) -> Option<&T> {
        self.parts.get(place / PART)?.get(place % PART)
    }

    /// All items, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.parts.iter().flat_map(|part| part.iter())
    }

    /// The parts themselves: two that are one allocation have the same items.
    pub fn parts(&self) -> &[Arc<[T]>] {
        &self.parts
    }
}

impl<T: Clone> Parts<T> {
    /// The item at a place, to be changed; its part is copied first where somebody shares it.
    ///
    /// # Panics
    /// Where there is none.
    pub fn get_mut(&mut self, place: usize) -> &mut T {
        &mut Arc::make_mut(&mut self.parts[place / PART])[place % PART]
    }

    /// Adds items at the end.
    pub fn append(&mut self, items: impl IntoIterator<Item = T>) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        let mut parts = std::mem::take(&mut self.parts).into_vec();
        let begun = parts.pop_if(|last| last.len() < PART);
        let begun: Vec<T> = begun.iter().flat_map(|part| part.iter().cloned()).collect();
        let mut all = begun.into_iter().chain(items);
        loop {
            let part: Arc<[T]> = all.by_ref().take(PART).collect();
            if part.is_empty() {
                break;
            }
            parts.push(part);
        }
        self.parts = parts.into();
    }
}

impl<T: Clone> FromIterator<T> for Parts<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut parts = Self::default();
        parts.append(items);
        parts
    }
}

impl<T> Index<usize> for Parts<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.parts[place / PART][place % PART]
    }
}

impl<T: PartialEq> PartialEq for Parts<T> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(one, other): (&Arc<[T]>, &Arc<[T]>)| Arc::ptr_eq(one, other) || one == other;
        self.parts.len() == other.parts.len() && self.parts.iter().zip(&other.parts).all(same)
    }
}

impl<T: Eq> Eq for Parts<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many parts two lists do not share.
    fn apart(one: &Parts<usize>, other: &Parts<usize>) -> usize {
        let shared = one.parts().iter().zip(other.parts()).filter(|(one, other)| Arc::ptr_eq(one, other));
        one.parts().len().max(other.parts().len()) - shared.count()
    }

    #[test]
    fn it_is_the_list_that_it_was_made_of() {
        for len in [0, 1, PART - 1, PART, PART + 1, 3 * PART] {
            let parts: Parts<usize> = (0..len).collect();
            assert!(parts.iter().copied().eq(0..len));
            assert_eq!((parts.len(), parts.is_empty(), parts.parts().len()), (len, len == 0, len.div_ceil(PART)));
            assert_eq!((parts.get(len), parts.get(len.wrapping_sub(1)).copied()), (None, len.checked_sub(1)));
            assert!((0..len).all(|place| parts[place] == place));
            // Wherever the seam is.
            for first in [0, len / 2, len] {
                let mut grown: Parts<usize> = (0..first).collect();
                grown.append(first..len);
                assert_eq!(grown, parts);
            }
        }
    }

    #[test]
    fn a_change_copies_one_part_and_leaves_the_others_as_they_are_seen() {
        let before: Parts<usize> = (0..10 * PART).collect();
        let mut after = before.clone();
        assert_eq!(apart(&before, &after), 0);
        for place in [3 * PART, 4 * PART - 1] {
            *after.get_mut(place) = 0;
        }
        assert_eq!((before[3 * PART], after[3 * PART], apart(&before, &after)), (3 * PART, 0, 1));
        assert_ne!(before, after);
        after.append([7]);
        assert_eq!((apart(&before, &after), after.len(), before.len()), (2, 10 * PART + 1, 10 * PART));
    }
}
