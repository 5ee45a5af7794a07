//! Values computed on rank 0 for all ranks, and validation results over all ranks.

use serde::Serialize;
use serde::de::DeserializeOwned;
use vgg_eval::Posteriors;
use vgg_tensor::ProcessGroup;
use vgg_train::Validation;

use crate::{Error, Result};

/// Computes a value on rank 0 and broadcasts it. Files may become visible on one rank sooner than on another.
///
/// # Errors
/// The errors of `find`, on rank 0 only, which must then abort all ranks; [`Error::Ranks`] on the others.
pub(crate) fn from_first<T: Serialize + DeserializeOwned>(
    group: &dyn ProcessGroup,
    find: impl FnOnce() -> Result<T>,
) -> Result<T> {
    if group.size() == 1 {
        return find();
    }
    let nonsense = |e: serde_json::Error| {
        let reason = format!("cannot exchange data between ranks: {e}");
        Error::Ranks(vgg_tensor::Error::Group { reason })
    };
    let found = if group.rank() == 0 { Some(find()?) } else { None };
    let bytes = found.map_or(Ok(Vec::new()), |found| serde_json::to_vec(&found)).map_err(nonsense)?;
    serde_json::from_slice(&group.all_gather_bytes(&bytes)?[0]).map_err(nonsense)
}

/// The validation result over the images of all ranks; `None` if validation was interrupted on a rank.
pub(crate) fn shared_out(
    own: Option<&Posteriors>,
    group: &dyn ProcessGroup,
) -> vgg_tensor::Result<Option<Validation>> {
    let mine = own.map_or([f64::NAN; 4], |posteriors| {
        let (top1, top5) = (posteriors.top1_error(), posteriors.top5_error());
        [top1.wrong as f64, top5.wrong as f64, posteriors.loss() * top1.n as f64, top1.n as f64]
    });
    let all = group.all_gather(&mine)?;
    let sum = |what: usize| all.iter().skip(what).step_by(mine.len()).sum::<f64>();
    let n = sum(3);
    if n.is_nan() {
        return Ok(None);
    }
    let n = n.max(1.0);
    Ok(Some(Validation { top1_error: sum(0) / n, top5_error: sum(1) / n, loss: sum(2) / n }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ndarray::Array2;

    use super::*;
    use vgg_tensor::{SingleProcess, on_thread_ranks};

    #[test]
    fn single_process_computes_the_value() {
        assert_eq!(from_first(&SingleProcess, || Ok(7)).unwrap(), 7);
        let failed = from_first(&SingleProcess, || Err::<u32, _>(Error::Plan("no".into())));
        assert_eq!(failed.unwrap_err().to_string(), "no");
    }

    #[test]
    fn rank_0_computes_the_value_for_all_ranks() {
        let found = on_thread_ranks(3, |group| {
            let rank = group.rank();
            let (mut asked, mut what) = (0, Vec::new());
            for round in 0..2 {
                what.push(from_first(&*group, || {
                    asked += 1;
                    Ok(format!("round {round} of rank {rank}"))
                }));
            }
            (asked, what.into_iter().collect::<Result<Vec<_>>>().unwrap())
        });
        let what = vec!["round 0 of rank 0".to_owned(), "round 1 of rank 0".to_owned()];
        assert_eq!(found, [(1 + 1, what.clone()), (0, what.clone()), (0, what)]);
    }

    /// Rank 1 of two; rank 0 sends invalid JSON.
    struct Babel;

    impl ProcessGroup for Babel {
        fn rank(&self) -> usize {
            1
        }
        fn size(&self) -> usize {
            2
        }
        fn all_reduce(&self, _values: &mut [f32]) -> vgg_tensor::Result<()> {
            Ok(())
        }
        fn all_gather(&self, values: &[f64]) -> vgg_tensor::Result<Vec<f64>> {
            Ok(values.to_vec())
        }
        fn all_gather_bytes(&self, bytes: &[u8]) -> vgg_tensor::Result<Vec<Vec<u8>>> {
            assert!(bytes.is_empty(), "only rank 0 sends data");
            Ok(vec![b"{".to_vec(), b"1".to_vec()])
        }
        fn abort(&self, code: i32) -> ! {
            std::process::exit(code)
        }
    }

    #[test]
    fn invalid_data_from_rank_0_is_a_group_error() {
        let error = from_first(&Babel, || Ok(1_u32)).unwrap_err();
        assert!(matches!(&error, Error::Ranks(vgg_tensor::Error::Group { .. })), "{error:?}");
    }

    /// Posteriors of seven classes. Each image is given as label, posterior of the label, and rank of the
    /// label from 0.
    fn posteriors(images: &[(u32, f32, usize)]) -> Posteriors {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for (label, own, better) in images {
            let others = (0..6).map(|other| if other < *better { own + 0.25 } else { own / 4.0 });
            let mut row: Vec<f32> = others.collect();
            row.insert(*label as usize, *own);
            values.extend(row);
            labels.push(*label);
        }
        let mut posteriors = Posteriors { labels, ..Posteriors::default() };
        posteriors.values = Array2::from_shape_vec((images.len(), 7), values).unwrap();
        posteriors
    }

    #[test]
    fn errors_and_loss_of_ranks_are_means_over_all_their_images() {
        // Top-1: 1 of 2 wrong, and 4 of 5. Top-5: 1 and 2 wrong.
        let parts = [
            posteriors(&[(3, 0.5, 0), (6, 0.125, 5)]),
            posteriors(&[(0, 0.25, 1), (1, 0.5, 0), (2, 0.0625, 6), (5, 0.25, 4), (4, 0.5, 5)]),
        ];
        let found = on_thread_ranks(2, |group| shared_out(Some(&parts[group.rank()]), &*group).unwrap());
        assert_eq!(found[0], found[1]);
        let found = found[0].unwrap();
        assert_eq!((found.top1_error, found.top5_error), (5.0 / 7.0, 3.0 / 7.0));
        // -log2 of the labels' posteriors: 1 and 3; 2, 1, 4, 2 and 1.
        let loss = 14.0 * std::f64::consts::LN_2 / 7.0;
        // Tolerance: a few roundings of f64.
        assert!((found.loss - loss).abs() < 1e-14, "{} is not {loss}", found.loss);
    }

    #[test]
    fn interrupted_rank_gives_no_validation() {
        let part = posteriors(&[(3, 0.5, 0)]);
        for stopped in [0, 1] {
            let own = |rank: usize| (rank != stopped).then_some(&part);
            let found = on_thread_ranks(2, |group: Arc<dyn ProcessGroup>| {
                shared_out(own(group.rank()), &*group).unwrap()
            });
            assert_eq!(found, [None, None]);
        }
    }

    #[test]
    fn a_rank_without_images_adds_nothing() {
        let parts = [posteriors(&[]), posteriors(&[(3, 0.5, 1), (2, 0.5, 0)])];
        let found =
            on_thread_ranks(2, |group| shared_out(Some(&parts[group.rank()]), &*group).unwrap().unwrap());
        assert_eq!((found[1].top1_error, found[1].top5_error), (0.5, 0.0));
        let none = shared_out(Some(&parts[0]), &SingleProcess).unwrap().unwrap();
        assert_eq!((none.top1_error, none.top5_error, none.loss), (0.0, 0.0, 0.0));
    }
}
