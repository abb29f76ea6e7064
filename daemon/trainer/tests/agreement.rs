//! The daemon's exact path and the networks as they were trained say the same, word for word.

use candle_core::{IndexOp, Result};
use kernels::{Cpu, CpuOptions, DType, KvDtype};
use messages::Sampling;
use mobilevlmd::camera::world::{Scene, Style, UNSEEN};
use mobilevlmd::model::builtin;
use mobilevlmd::model::files::LoadOptions;
use mobilevlmd::model::prompt::{Turn, after_image, system_prefix};
use mobilevlmd::model::sampler::Sampler;
use mobilevlmd::model::viewer::Viewer;
use trainer::batch::Batch;
use trainer::example::{Example, Examples, Segment};
use trainer::import::import;

/// Scenes that are described, none of them trained on.
const SCENES: u64 = 200;

/// Scenes of one pass through the trained networks.
const TOGETHER: usize = 8;

/// Tokens of a caption at most.
const TOKENS: usize = 64;

#[test]
fn greedy_captions_are_those_of_the_trained_networks() -> Result<()> {
    let files = builtin::open().expect("the built-in model");
    let (dims, net) = import(&files)?;
    let exact = LoadOptions { dtype: None, vision_dtype: DType::F32, exact: true };
    let cpu = Cpu::new(CpuOptions::default());
    let mut viewer = Viewer::load(&files, cpu, &exact, KvDtype::F32).expect("it loads");
    let tokenizer = viewer.tokenizer().clone();
    let system = system_prefix(&tokenizer);
    let mut examples = Examples::new(&tokenizer, (dims.vision.image, dims.vision.patch), (0, 0));
    let prompt = Style::Sentence.prompts()[0];
    let asked = after_image(&tokenizer, &[Turn::ask(prompt)]);

    let mut described: Vec<Example> = Vec::new();
    for seed in UNSEEN..UNSEEN + SCENES {
        let picture = Scene::sample(seed).render(320, 240);
        viewer.look(&picture).expect("it fits");
        viewer.ask(prompt).expect("it fits");
        let mut sampler = Sampler::new(Sampling::default());
        let said = viewer.answer(&mut sampler, TOKENS, &mut |_| Ok(())).expect("it answers");
        assert!(said.ids.len() > 3, "{seed}: {said:?}");
        let ids = [asked.clone(), said.ids].concat();
        let segments = vec![Segment { ids, answer: asked.len(), category: "caption" }];
        described.push(Example { segments, ..examples.show(&picture) });
    }

    // Had the trained networks chosen, every token would be the one most probable after those before it.
    let mut differing = Vec::new();
    for (index, group) in described.chunks(TOGETHER).enumerate() {
        let batch = Batch::new(&dims, &system, group)?;
        let got = batch.answer(&net, &batch.see(&net)?.visual)?.argmax(1)?;
        for (number, answer) in batch.answers().iter().enumerate() {
            let range = answer.targets.clone();
            if got.i(range.clone())?.to_vec1::<u32>()? != batch.targets().i(range)?.to_vec1::<u32>()? {
                differing.push(index * TOGETHER + number);
            }
        }
    }
    assert!(differing.is_empty(), "other tokens on scenes {differing:?} of {SCENES}");
    Ok(())
}
