//! Every derivative against differences of its function.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};

use super::*;

/// A fixed tensor of numbers around zero.
fn numbers(shape: &[usize], seed: u32) -> Tensor {
    let count: usize = shape.iter().product();
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a shape")
}

/// Compares derivatives of a weighted sum of the result with central differences, at some places of
/// every argument.
fn check(name: &str, arguments: &[Tensor], function: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = arguments.iter().map(|x| Var::from_tensor(x).expect("a variable")).collect();
    let tensors = || vars.iter().map(|var| var.as_tensor().clone()).collect::<Vec<_>>();
    let shape = function(arguments).expect("computes").dims().to_vec();
    let weights = numbers(&shape, 99);
    let loss = |inputs: &[Tensor]| -> f64 {
        let y = function(inputs).expect("computes");
        let terms = y.mul(&weights).expect("one shape").flatten_all().expect("flat");
        terms.to_vec1::<f32>().expect("numbers").iter().map(|&x| f64::from(x)).sum()
    };
    let scalar = function(&tensors()).and_then(|y| y.mul(&weights)?.sum_all()).expect("computes");
    let grads = scalar.backward().expect("has derivatives");
    for (index, var) in vars.iter().enumerate() {
        let grad = grads.get(var).expect("a derivative").flatten_all().expect("flat");
        let grad = grad.to_vec1::<f32>().expect("numbers");
        let base = arguments[index].flatten_all().expect("flat").to_vec1::<f32>().expect("numbers");
        for place in (0..base.len()).step_by(1 + base.len() / 29) {
            let step = 1e-2;
            let moved = |by: f32| {
                let mut values = base.clone();
                values[place] += by;
                let mut inputs = arguments.to_vec();
                inputs[index] =
                    Tensor::from_vec(values, arguments[index].shape(), &Device::Cpu).expect("same");
                loss(&inputs)
            };
            let want = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let got = f64::from(grad[place]);
            assert!((got - want).abs() < 2e-3 * (1.0 + want.abs()), "{name} {index}[{place}]: {got} {want}");
        }
    }
}

#[test]
fn derivatives_are_those_of_the_functions() {
    let rows = |seed| numbers(&[7, 64], seed);
    let flat = |seed| numbers(&[64], seed);
    check("add-bias", &[rows(1), flat(2)], |x| add_bias(&x[0], &x[1]));
    check("quick-gelu", &[rows(3)], |x| quick_gelu(&x[0]));
    check("swiglu", &[rows(4), rows(5)], |x| swiglu(&x[0], &x[1]));
    check("layer-norm", &[rows(6), flat(7), flat(8)], |x| layer_norm(&x[0], &x[1], &x[2], 1e-5));
    check("rms-norm", &[rows(9), flat(10)], |x| rms_norm(&x[0], &x[1], 1e-5));
    let rotation = Rotation::new(&[0, 1, 2, 5, 9, 100, 7], 10_000.0);
    check("rope", &[rows(11)], |x| rope(&x[0], &rotation));
    let spans = Arc::new(vec![
        Span { shared: 0..0, own: 0..3, causal: true },
        Span { shared: 0..3, own: 3..5, causal: true },
        Span { shared: 0..3, own: 5..7, causal: false },
    ]);
    check("attention", &[rows(12), rows(13), rows(14)], |x| attention(&x[0], &x[1], &x[2], &spans));
}

#[test]
fn attention_is_softmax_of_products() {
    let [q, k, v] = [1, 2, 3].map(|seed| numbers(&[6, HEAD_DIM], seed));
    let spans = Arc::new(vec![Span { shared: 0..0, own: 0..6, causal: false }]);
    let got = attention(&q, &k, &v, &spans).expect("computes");
    let scores =
        (q.matmul(&k.t().expect("a matrix")).expect("fits") / (HEAD_DIM as f64).sqrt()).expect("scaled");
    let want = candle_nn::ops::softmax(&scores, 1).and_then(|p| p.matmul(&v)).expect("fits");
    let worst =
        (got - want).and_then(|d| d.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()).expect("numbers");
    assert!(worst < 1e-5, "{worst}");
}
