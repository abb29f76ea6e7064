//! The system prompt on disk: the same bits as computed, or not used at all.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::{Cpu, CpuOptions, DType, Device, KvDtype, PAGE, Reference};
use mobilevlmd::model::files::{LoadOptions, ModelFiles, ModelPaths};
use mobilevlmd::model::kv_cache::Sequence;
use mobilevlmd::model::{Input, KvOptions, MobileVlm, PrefixError};

const OPTIONS: LoadOptions = LoadOptions { dtype: None, vision_dtype: DType::Q8_0, exact: false };
const KV: KvOptions = KvOptions { context: 512, pages: 20, dtype: KvDtype::F16 };

fn files(model: &str) -> ModelFiles {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/gguf").join(model);
    ModelFiles::open(&ModelPaths { model, ..ModelPaths::default() }).unwrap()
}

fn tiny() -> ModelFiles {
    files("v1-tiny/model-q4_0.gguf")
}

fn cpu() -> Cpu {
    Cpu::new(CpuOptions { threads: 1, ..CpuOptions::default() })
}

fn load<D: Device>(files: &ModelFiles, device: D, kv: KvOptions) -> MobileVlm<D> {
    MobileVlm::load(files, device, &OPTIONS, kv).unwrap()
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prefix").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn ids() -> Vec<u32> {
    (0..PAGE as u32 + 5).map(|i| 3 + i * 131 % 1900).collect()
}

/// Logits behind the beginning and a few tokens more, bit for bit.
fn answer<D: Device>(model: &mut MobileVlm<D>, sequence: &mut Sequence) -> Vec<u32> {
    let mut pass = model.pass().unwrap();
    model.forward(&mut pass, sequence, Input::Tokens(&[7, 8, 9])).unwrap();
    let logits = model.logits(&pass).iter().map(|logit| logit.to_bits()).collect();
    model.release(sequence);
    assert_eq!(model.cache().pages_used(), 0);
    logits
}

/// Computes the beginning and stores it. Returns the answer behind it.
fn store<D: Device>(model: &mut MobileVlm<D>, folder: &Path) -> Vec<u32> {
    let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
    model.forward(&mut pass, &mut sequence, Input::Tokens(&ids())).unwrap();
    model.save_prefix(folder, &ids(), &sequence).unwrap();
    answer(model, &mut sequence)
}

fn check_round_trip<D: Device>(files: &ModelFiles, make: impl Fn() -> D, dtype: KvDtype) {
    let device = make().name();
    let folder = folder(&format!("round-{device}-{}", dtype.name()));
    let kv = KvOptions { dtype, ..KV };
    let want = store(&mut load(files, make(), kv), &folder);
    let model = &mut load(files, make(), kv);
    let mut sequence = Sequence::default();
    assert!(model.load_prefix(&folder, &ids(), &mut sequence).unwrap(), "{device}");
    assert_eq!(sequence.len(), ids().len());
    assert!(answer(model, &mut sequence) == want, "{device}, {}", dtype.name());
    let written = fs::read_dir(&folder).unwrap().count();
    assert_eq!(written, 1, "one file and nothing beside it");
}

#[test]
fn a_stored_beginning_gives_the_bits_of_a_computed_one() {
    let files = files("v2-gqa/model-q8_0.gguf");
    for dtype in KvDtype::ALL {
        check_round_trip(&files, cpu, dtype);
    }
    check_round_trip(&files, || Reference, KvDtype::F16);
}

#[test]
fn what_another_run_would_compute_differently_is_foreign() {
    let folder = folder("foreign");
    store(&mut load(&tiny(), cpu(), KV), &folder);
    let refused = |model: &mut MobileVlm<Cpu>, ids: &[u32]| {
        let mut sequence = Sequence::default();
        let refused = model.load_prefix(&folder, ids, &mut sequence);
        assert!(matches!(refused, Err(PrefixError::Foreign { .. })), "{refused:?}");
        assert!(sequence.is_empty() && model.cache().pages_used() == 0);
    };
    let mut other_ids = ids();
    other_ids[3] += 1;
    refused(&mut load(&tiny(), cpu(), KV), &other_ids);
    refused(&mut load(&tiny(), cpu(), KV), &ids()[..5]);
    refused(&mut load(&tiny(), cpu(), KvOptions { dtype: KvDtype::Q8, ..KV }), &ids());
    refused(&mut load(&tiny(), cpu(), KvOptions { context: 4096, ..KV }), &ids());
    refused(&mut load(&files("v2-gqa/model-q8_0.gguf"), cpu(), KV), &ids());
    if let [plainest, .., _] = Cpu::available()[..] {
        let device = Cpu::new(CpuOptions { threads: 1, isa_cap: Some(plainest) });
        refused(&mut load(&tiny(), device, KV), &ids());
    }
    // A shorter context changes no number.
    let model = &mut load(&tiny(), cpu(), KvOptions { context: 300, ..KV });
    let mut sequence = Sequence::default();
    assert!(model.load_prefix(&folder, &ids(), &mut sequence).unwrap());
}

#[test]
fn one_changed_weight_makes_another_model() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/gguf/v1-tiny");
    let folder = folder("weights");
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let model = folder.join("model-q4_0.gguf");
    let open = || ModelFiles::open(&ModelPaths { model: model.clone(), ..ModelPaths::default() }).unwrap();
    let before = open().language_fingerprint().unwrap();
    assert_eq!(before, tiny().language_fingerprint().unwrap());
    let mut bytes = fs::read(&model).unwrap();
    // The last bytes belong to the last tensor.
    let last = bytes.len() - 40;
    bytes[last] ^= 1;
    fs::write(&model, bytes).unwrap();
    assert_ne!(before, open().language_fingerprint().unwrap());
}

#[test]
fn no_damaged_file_is_used() {
    let folder = folder("damaged");
    let model = &mut load(&tiny(), cpu(), KV);
    let want = store(model, &folder);
    let path = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&path).unwrap();
    let mut refused = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let mut sequence = Sequence::default();
        let refused = model.load_prefix(&folder, &ids(), &mut sequence);
        let is_typed = matches!(refused, Err(PrefixError::Damaged { .. } | PrefixError::Foreign { .. }));
        assert!(is_typed && sequence.is_empty(), "{what}: {refused:?}");
        assert_eq!(model.cache().pages_used(), 0, "{what}");
    };
    // Places in the header, in the pages, and in the checksum.
    let last = whole.len() - 1;
    for at in (0..600).step_by(40).chain((600..last).step_by(last / 40)).chain([last - 3, last]) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        refused(&damaged, &format!("byte {at}"));
    }
    for len in (0..last).step_by(last / 20).chain([last]) {
        refused(&whole[..len], &format!("{len} bytes of {}", whole.len()));
    }
    refused(&[&whole[..], &[0]].concat(), "a byte too many");
    refused(&vec![0; whole.len()], "zeros");
    fs::write(&path, &whole).unwrap();
    let mut sequence = Sequence::default();
    assert!(model.load_prefix(&folder, &ids(), &mut sequence).unwrap());
    assert!(answer(model, &mut sequence) == want);
}

#[test]
fn a_beginning_is_read_where_it_can_be_and_else_computed_and_stored() {
    let folder = folder("beginning");
    let make = || load(&tiny(), cpu(), KV).with_prefix_folder(Some(folder.clone()));
    let read = |model: &mut MobileVlm<Cpu>| {
        let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
        model.read_beginning(&mut pass, &mut sequence, &ids()).unwrap();
        answer(model, &mut sequence)
    };
    let want = read(&mut make());
    let path = folder.join("prefix.kv");
    let whole = fs::read(&path).unwrap();
    assert!(read(&mut make()) == want);
    // A damaged file is replaced, a folder in its place and a missing folder are no harm.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(read(&mut make()) == want);
    assert!(fs::read(&path).unwrap() == whole);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(read(&mut make()) == want);
    fs::remove_dir_all(&folder).unwrap();
    assert!(read(&mut make()) == want);
    // Another prompt takes the place.
    fs::create_dir_all(&folder).unwrap();
    let mut sequence = Sequence::default();
    let model = &mut make();
    let mut pass = model.pass().unwrap();
    model.read_beginning(&mut pass, &mut sequence, &[5, 6, 7]).unwrap();
    assert!(fs::read(&path).unwrap() != whole);
    model.release(&mut sequence);
    assert!(read(model) == want && fs::read(&path).unwrap() == whole);
}

#[test]
fn a_full_cache_refuses_a_stored_beginning() {
    let folder = folder("full");
    store(&mut load(&tiny(), cpu(), KV), &folder);
    let model = &mut load(&tiny(), cpu(), KvOptions { pages: 1, ..KV });
    let mut sequence = Sequence::default();
    let refused = model.load_prefix(&folder, &ids(), &mut sequence);
    assert!(matches!(refused, Err(PrefixError::OutOfPages(_))), "{refused:?}");
    assert!(sequence.is_empty() && model.cache().pages_used() == 0);
}

#[test]
fn contexts_up_to_the_trained_one_change_no_bit_and_longer_ones_do() {
    let files = tiny();
    let trained = files.language.context;
    let with = |context: usize| {
        let model = &mut load(&files, cpu(), KvOptions { context, ..KV });
        let (mut pass, mut sequence) = (model.pass().unwrap(), Sequence::default());
        model.forward(&mut pass, &mut sequence, Input::Tokens(&ids())).unwrap();
        answer(model, &mut sequence)
    };
    let want = with(trained);
    assert!(with(256) == want && with(trained / 2) == want);
    assert!(with(4 * trained) != want);
}
