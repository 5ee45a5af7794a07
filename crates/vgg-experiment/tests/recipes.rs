//! The built-in recipes.

use vgg_experiment::{ALL_TABLES, Profile, Recipe, TablePlan, paper, profile_recipe};
use vgg_layers::NetworkSpec;

fn plans(profile: Profile) -> Vec<TablePlan> {
    let Recipe::Trained(tables) = profile_recipe(profile, ALL_TABLES, &[]).unwrap() else { panic!() };
    tables.plans
}

#[test]
fn all_tables_that_come_with_the_program_are_sound() {
    for profile in [Profile::Smoke, Profile::Mini, Profile::Paper] {
        let plans = plans(profile);
        let names: Vec<&str> = plans.iter().map(|plan| plan.name.as_str()).collect();
        assert_eq!(names, ["table3", "table4", "table5", "table6", "table7", "init", "shallow"]);
        for plan in plans {
            // Every row of the paper's table, in its order.
            let ours: Vec<&str> = plan.rows.iter().map(|row| row.paper.as_str()).collect();
            let theirs: Vec<&str> = paper::rows(&plan.name).iter().map(|row| row.name).collect();
            assert!(theirs.is_empty() || ours == theirs, "{}: {ours:?}", plan.name);
        }
    }
    let recipe = |name| profile_recipe(Profile::Mini, name, &[]).unwrap();
    assert!(matches!(recipe("table1"), Recipe::Layers(networks) if networks.len() == 6));
    assert!(matches!(recipe("table2"), Recipe::Parameters(_)));
}

#[test]
fn the_paper_profile_is_the_papers() {
    let plans = plans(Profile::Paper);
    assert_eq!(plans[0].differences_from_paper(), None);
    assert_eq!(plans[0].runs.len(), 12);
    for plan in &plans[..2] {
        for (row, theirs) in plan.rows.iter().zip(paper::rows(&plan.name)) {
            let [member] = row.members.as_slice() else { panic!() };
            let run = plan.run(&member.run).unwrap();
            let sides = (run.train_scale(), member.evaluation.test_scales.clone());
            assert_eq!(sides, (theirs.train_scale.to_vec(), theirs.test_scales.to_vec()));
            assert_eq!(run.spec(1000).unwrap(), NetworkSpec::paper(run.network.config.clone()));
            assert_eq!((run.optimizer.batch, run.run.max_epochs, run.data.pca_jitter_std), (256, 74, 0.1));
            let from = match row.paper.split_once('/').unwrap() {
                ("A" | "A-LRN", _) => None,
                (_, "256") => Some("A/256".to_owned()),
                (config, "384") => Some(format!("{config}/256")),
                (config, _) => Some(format!("{config}/384")),
            };
            assert_eq!(run.parent().map(str::to_owned), from, "{}", member.run);
        }
    }
    let submission = &plans[3].rows[0];
    assert_eq!(submission.members.len(), 7);
    let head = plans[3].run("D/jitter-fc").unwrap();
    assert_eq!(head.network.train_layers.as_deref().unwrap_or_default(), ["fc6", "fc7", "fc8"]);
    assert_eq!(plans[3].rows[3].members.len(), 4);
}
