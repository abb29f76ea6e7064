//! AdamW whose state can be saved, which candle's own keeps to itself.

use candle_core::{Result, Tensor, Var};

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.98;
const EPS: f32 = 1e-8;

/// Moments of one parameter.
struct Moments {
    first: Vec<f32>,
    second: Vec<f32>,
}

/// One parameter under training.
struct Parameter {
    name: String,
    var: Var,
    /// Only matrices decay: scales, shifts and tables have no reason to be small.
    decays: bool,
    moments: Moments,
}

/// The optimizer.
pub struct AdamW {
    parameters: Vec<Parameter>,
    weight_decay: f32,
    steps: u32,
}

impl AdamW {
    /// For named parameters, from zero moments.
    pub fn new(vars: impl IntoIterator<Item = (String, Var)>, weight_decay: f32) -> Self {
        let parameter = |(name, var): (String, Var)| {
            let zeros = || vec![0.0; var.elem_count()];
            let decays = var.rank() == 2 && !name.contains("embd");
            Parameter { name, decays, moments: Moments { first: zeros(), second: zeros() }, var }
        };
        let mut parameters: Vec<_> = vars.into_iter().map(parameter).collect();
        parameters.sort_by(|a, b| a.name.cmp(&b.name));
        Self { parameters, weight_decay, steps: 0 }
    }

    /// Names, in the order of gradients.
    pub fn vars(&self) -> impl Iterator<Item = &Var> {
        self.parameters.iter().map(|parameter| &parameter.var)
    }

    /// Steps taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// One step. `grads` are in the order of [`AdamW::vars`]; they are scaled down to a norm of `clip`.
    /// Returns the norm before.
    pub fn step(&mut self, grads: &[Vec<f32>], rate: f32, clip: f32) -> Result<f32> {
        let square = |grad: &Vec<f32>| grad.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        let norm = grads.iter().map(square).sum::<f64>().sqrt() as f32;
        let scale = if norm > clip { clip / norm } else { 1.0 };
        self.steps += 1;
        let (steps, decay) = (self.steps as i32, rate * self.weight_decay);
        let corrections = (1.0 / (1.0 - BETA1.powi(steps)), 1.0 / (1.0 - BETA2.powi(steps)));
        for (parameter, grad) in self.parameters.iter_mut().zip(grads) {
            let decay = if parameter.decays { decay } else { 0.0 };
            let mut values = parameter.var.flatten_all()?.to_vec1::<f32>()?;
            let Moments { first, second } = &mut parameter.moments;
            pulp::Arch::new().dispatch(|| {
                let moments = first.iter_mut().zip(second.iter_mut());
                for ((value, &g), (m, v)) in values.iter_mut().zip(grad).zip(moments) {
                    let g = g * scale;
                    *m = BETA1 * *m + (1.0 - BETA1) * g;
                    *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                    let step = *m * corrections.0 / ((*v * corrections.1).sqrt() + EPS);
                    *value -= rate * step + decay * *value;
                }
            });
            parameter.var.set(&Tensor::from_vec(values, parameter.var.shape(), parameter.var.device())?)?;
        }
        Ok(norm)
    }

    /// The state by name: `first.NAME` and `second.NAME`.
    pub fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut state = Vec::new();
        for Parameter { name, var, moments, .. } in &self.parameters {
            for (kind, values) in [("first", &moments.first), ("second", &moments.second)] {
                let tensor = Tensor::from_slice(values, var.shape(), var.device())?;
                state.push((format!("{kind}.{name}"), tensor));
            }
        }
        Ok(state)
    }

    /// Goes on from a saved state; `take` finds a tensor by name.
    pub fn restore(&mut self, steps: u32, take: impl Fn(&str) -> Result<Tensor>) -> Result<()> {
        for Parameter { name, moments, .. } in &mut self.parameters {
            for (kind, values) in [("first", &mut moments.first), ("second", &mut moments.second)] {
                *values = take(&format!("{kind}.{name}"))?.flatten_all()?.to_vec1()?;
            }
        }
        self.steps = steps;
        Ok(())
    }
}
