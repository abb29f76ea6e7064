//! Pages taken, shared, copied and given back.

use kernels::Reference;

use super::*;

const SHAPE: KvShape = KvShape { layers: 1, kv_heads: 1, head_dim: 2 };

fn cache(pages: usize) -> (Reference, KvCache<Reference>) {
    let device = Reference;
    let cache = KvCache::new(&device, SHAPE, pages, KvDtype::F32).expect("a small arena");
    (device, cache)
}

#[test]
fn extending_takes_pages_and_rewinding_gives_them_back() {
    let (device, mut cache) = cache(4);
    let (mut sequence, mut slots) = (Sequence::default(), Vec::new());
    cache.extend(&device, &mut sequence, PAGE, &mut slots).expect("room");
    let mark = sequence.mark();
    cache.extend(&device, &mut sequence, 1, &mut slots).expect("room");
    assert_eq!((sequence.len(), cache.pages_used()), (PAGE + 1, 2));
    assert_eq!(slots[PAGE], Slot { page: sequence.pages()[1], offset: 0 });
    cache.rewind(&mut sequence, mark);
    assert_eq!((sequence.len(), cache.pages_used()), (PAGE, 1));
    cache.release(&mut sequence);
    assert_eq!((sequence.len(), cache.pages_used()), (0, 0));
}

#[test]
fn a_fork_shares_full_pages_and_copies_the_last_one_when_written() {
    let (device, mut cache) = cache(8);
    let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
    cache.extend(&device, &mut parent, PAGE + 3, &mut slots).expect("room");
    cache.fork(&parent, &mut child);
    assert_eq!((cache.pages_used(), child.pages()), (2, parent.pages()));
    cache.extend(&device, &mut child, 1, &mut slots).expect("room");
    assert_eq!(child.pages()[0], parent.pages()[0]);
    assert_ne!(child.pages()[1], parent.pages()[1]);
    assert_eq!(cache.pages_used(), 3);
    cache.release(&mut parent);
    assert_eq!(cache.pages_used(), 2);
    cache.release(&mut child);
    assert_eq!(cache.pages_used(), 0);
}

#[test]
fn the_last_owner_of_a_page_writes_in_place() {
    let (device, mut cache) = cache(8);
    let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
    cache.extend(&device, &mut parent, 3, &mut slots).expect("room");
    cache.fork(&parent, &mut child);
    cache.release(&mut parent);
    let page = child.pages()[0];
    cache.extend(&device, &mut child, 1, &mut slots).expect("room");
    assert_eq!(child.pages(), [page]);
}

#[test]
fn a_full_arena_refuses_and_changes_nothing() {
    let (device, mut cache) = cache(2);
    let (mut parent, mut child, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
    cache.extend(&device, &mut parent, PAGE + 1, &mut slots).expect("room");
    cache.fork(&parent, &mut child);
    let before = slots.len();
    let full = cache.extend(&device, &mut child, 1, &mut slots);
    assert_eq!(full, Err(OutOfPages { wanted: 1, free: 0, pages: 2 }));
    assert_eq!((child.len(), child.pages(), slots.len()), (PAGE + 1, parent.pages(), before));
    cache.release(&mut child);
    cache.extend(&device, &mut parent, 1, &mut slots).expect("room");
    cache.release(&mut parent);
    assert_eq!(cache.pages_used(), 0);
}

#[test]
fn forks_see_their_own_rows_only() {
    let (device, mut cache) = cache(4);
    let row = |value: f32| kernels::HostTensor::from_rows(&[value, value], 2);
    let (mut a, mut b, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
    let mut write = |cache: &mut KvCache<Reference>, sequence: &mut Sequence, value: f32| {
        slots.clear();
        cache.extend(&device, sequence, 1, &mut slots).expect("room");
        device.kv_append(cache.arena_mut(), 0, &row(0.0), &row(value), &slots);
    };
    write(&mut cache, &mut a, 2.0);
    cache.fork(&a, &mut b);
    write(&mut cache, &mut a, 4.0);
    write(&mut cache, &mut b, 8.0);
    // All scores are 0, so attention is the mean of the values.
    let mean = |sequence: &Sequence| {
        let mut out = device.tensor(1, 2).expect("a row");
        let spans = [kernels::Span { rows: 0..1, position: 1, pages: sequence.pages() }];
        device.attend(&row(1.0), cache.arena(), 0, &spans, 1, &mut out);
        out.data()[0]
    };
    assert_eq!((mean(&a), mean(&b)), (3.0, 5.0));
}

#[test]
fn pages_set_aside_are_there_when_others_run_out() {
    let (device, mut cache) = cache(6);
    let (mut scene, mut answer, mut other) = <(Sequence, Sequence, Sequence)>::default();
    let mut slots = Vec::new();
    cache.extend(&device, &mut scene, PAGE + 3, &mut slots).expect("room");
    cache.fork(&scene, &mut answer);
    // A copy of the shared page, and another one.
    cache.reserve(&mut answer, PAGE).expect("room");
    assert_eq!((cache.pages_used(), cache.pages_free()), (4, 2));
    let refused = cache.reserve(&mut other, 3 * PAGE);
    assert_eq!(refused, Err(OutOfPages { wanted: 3, free: 2, pages: 6 }));
    cache.extend(&device, &mut other, 2 * PAGE, &mut slots).expect("room");
    let mark = answer.mark();
    for rows in [PAGE, 1, PAGE] {
        cache.extend(&device, &mut answer, rows, &mut slots).expect("pages were set aside");
        cache.rewind(&mut answer, mark);
    }
    assert_eq!(cache.pages_free(), 0);
    cache.release(&mut answer);
    assert_eq!(cache.pages_free(), 2);
    cache.release(&mut scene);
    cache.release(&mut other);
    assert_eq!(cache.pages_free(), 6);
}

#[test]
fn only_pages_that_a_burst_has_left_are_cold() {
    let (device, mut cache) = cache(8);
    let (mut steady, mut burst, mut slots) = (Sequence::default(), Sequence::default(), Vec::new());
    assert_eq!(cache.forget_cold(&device), 0, "nothing was written yet");
    cache.extend(&device, &mut steady, PAGE, &mut slots).expect("room");
    cache.extend(&device, &mut burst, 5 * PAGE, &mut slots).expect("room");
    cache.release(&mut burst);
    assert_eq!(cache.forget_cold(&device), 0, "they were in use a moment ago");
    // What goes on takes the same two pages again and again.
    for _ in 0..3 {
        cache.extend(&device, &mut burst, 2 * PAGE, &mut slots).expect("room");
        cache.release(&mut burst);
    }
    assert_eq!(cache.forget_cold(&device), 3);
    assert_eq!(cache.forget_cold(&device), 2, "now they are cold, too");
    assert_eq!((cache.forget_cold(&device), cache.pages_used()), (0, 1));
    cache.release(&mut steady);
}
