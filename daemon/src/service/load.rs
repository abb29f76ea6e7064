//! From configuration to a running engine, on the device it names.

use std::sync::Arc;

use kernels::cpu::IsaLevel;
use kernels::{Cpu, CpuOptions, Device, Reference};
use messages::ModelStatus;
use tokio::sync::mpsc;

use super::ServiceError;
use crate::camera::Wake;
use crate::changes::Changes;
use crate::config::{Config, ModelConfig};
use crate::cores;
use crate::engine::{self, CameraInput, EngineHandle, EngineOptions, EngineParts, Event};
use crate::gpu::{self, DeviceChoice};
use crate::model::files::{ModelFiles, ModelSource};
use crate::model::preprocess::Preprocessor;
use crate::model::tokenizer::Tokenizer;
use crate::model::weights::kept::Kept;
use crate::model::{KvOptions, MobileVlm};

/// Checked files, of which nothing is loaded yet.
pub(super) struct Loading {
    files: ModelFiles,
    tokenizer: Tokenizer,
}

/// What runs, what it publishes, and what it is.
pub type Started = (EngineHandle, mpsc::Receiver<Event>, ModelStatus);

/// Opens and checks the files of a model.
pub(super) fn open(config: &ModelConfig) -> Result<Loading, ServiceError> {
    let files = config.source().open()?;
    let tokenizer = Tokenizer::of_model(&files)?;
    Ok(Loading { files, tokenizer })
}

impl Loading {
    /// Loads the weights and starts the engine, on what was changed before.
    pub(super) fn start(
        self,
        (config, changes): (&Config, &Changes),
        cameras: Vec<CameraInput>,
        wake: Wake,
    ) -> Result<Started, ServiceError> {
        let folder = config.model.cache_folder();
        let gpu = match config.model.device_choice() {
            DeviceChoice::Reference => return self.start_on(Reference, (config, changes), cameras, wake),
            DeviceChoice::Cuda(ordinal) => Some(gpu::open(ordinal, folder)?),
            DeviceChoice::Auto => gpu::open_if_usable(folder),
            DeviceChoice::Cpu => None,
        };
        match gpu {
            Some(gpu) => self.start_on(gpu, (config, changes), cameras, wake),
            None => self.start_on(cpu(&config.model), (config, changes), cameras, wake),
        }
    }

    fn start_on<D: Device + 'static>(
        self,
        device: D,
        (config, changes): (&Config, &Changes),
        cameras: Vec<CameraInput>,
        wake: Wake,
    ) -> Result<Started, ServiceError> {
        let Self { files, tokenizer } = self;
        let kv_bytes = config.model.kv_cache_mib << 20;
        let kv =
            KvOptions::with_budget(&files.language, config.model.context, kv_bytes, config.model.kv_dtype());
        let name = device.name();
        let (folder, options) = (config.model.cache_folder(), config.model.load_options());
        let packed = folder.as_deref().filter(|_| config.model.keeps_weights());
        let kept = Kept::open(packed, &files, &device, &options)?;
        let model = MobileVlm::load_kept(&files, device, &options, kv, &kept)?.with_prefix_folder(folder);
        // The thread ends by itself.
        drop(kept.keep());
        let status = ModelStatus {
            id: files.id.clone(),
            weights: weights(&files, &config.model.source()),
            device: name,
            weight_bytes: model.weight_bytes() as u64,
        };
        let parts = EngineParts {
            model,
            tokenizer: Arc::new(tokenizer),
            preprocessor: Preprocessor::new(files.vision.image, files.image_mean, files.image_std),
            cameras,
            wake,
            options: EngineOptions {
                model_id: files.id,
                caption: config.caption.clone(),
                question: config.question.clone(),
                rules: config.rules.clone(),
                changes: changes.clone(),
                foretold: None,
            },
        };
        let (engine, events) = engine::spawn(parts)?;
        Ok((engine, events, status))
    }
}

/// What the files hold, without the name of the model in front but saying so if it is built in.
fn weights(files: &ModelFiles, source: &ModelSource) -> String {
    let summary = files.summary();
    let held = summary.strip_prefix(&format!("{}: ", files.id)).unwrap_or(&summary);
    match source {
        ModelSource::BuiltIn => format!("{source}, {held}"),
        ModelSource::Files(_) => held.to_owned(),
    }
}

/// The device that a configuration names, in words, or why it cannot be used.
pub fn device_name(config: &ModelConfig) -> Result<String, String> {
    let folder = config.cache_folder();
    match config.device_choice() {
        DeviceChoice::Reference => Ok(Reference.name()),
        DeviceChoice::Cpu => Ok(cpu(config).name()),
        DeviceChoice::Cuda(ordinal) => {
            gpu::open(ordinal, folder).map(|gpu| gpu.name()).map_err(|error| error.to_string())
        }
        DeviceChoice::Auto => Ok(match gpu::open(0, folder) {
            Ok(gpu) => gpu.name(),
            Err(error) => format!("{}, as {error}", cpu(config).name()),
        }),
    }
}

fn cpu(config: &ModelConfig) -> Cpu {
    // "auto" is no instruction set, so no cap.
    let options = CpuOptions { threads: config.threads, isa_cap: config.isa.parse::<IsaLevel>().ok() };
    Cpu::on(cores::choose(&config.cpus), options)
}
