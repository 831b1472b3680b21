//! Deltas: chains of them by the stock tool and by ours, in every combination.

mod common;

use std::time::Duration;

use harness::chain::Chain;
use harness::load::{LoadOptions, Mix};
use harness::{Scratch, ServerOptions, Tool};

/// More chains than those of every day: `HAULOUT_TEST_CHAINS=30`, or `7..8` for that one seed.
const CHAINS: &str = "HAULOUT_TEST_CHAINS";

fn seeds() -> std::ops::Range<u64> {
    let text = std::env::var(CHAINS).unwrap_or_default();
    match text.split_once("..") {
        Some((first, end)) => first.parse().unwrap_or(0)..end.parse().unwrap_or(1),
        None => 0..text.parse().unwrap_or(1),
    }
}

/// A chain of three deltas. Which tools take its links and prepare it follows from the seed.
fn chain(seed: u64, links: &Scratch) -> Chain {
    let ours = common::haulout();
    let Tool::Haulout(program) = &ours else { unreachable!("this is our tool") };
    let dir = links.join(&format!("links{seed}"));
    std::fs::create_dir(&dir).expect("a directory for links");
    let linked = common::ok(Tool::links(program, &dir));
    let mut rng = fastrand::Rng::with_seed(seed);
    let tools = [ours.clone(), linked.clone(), Tool::stock()];
    let links: Vec<Tool> = (0..4)
        .map(|_| tools[rng.usize(0..if seed.is_multiple_of(3) { 1 } else { 3 })].clone())
        .collect();
    // The stock tool loses tables of other engines now and then, and cannot prepare every delta of
    // its own.
    let by_stock = links.iter().any(|tool| matches!(tool, Tool::Stock(_)));
    let mix = match (by_stock, seed % 4) {
        (true, _) => Mix::Innodb,
        (false, 1) => Mix::Compressed,
        _ => Mix::Everything,
    };
    let mut prepare = vec![if seed.is_multiple_of(2) { ours } else { linked }];
    if mix != Mix::Everything {
        prepare.push(Tool::stock());
    }
    let mut load = LoadOptions::new(seed);
    load.mix = mix;
    Chain {
        server: ServerOptions::default(),
        load,
        links,
        prepare,
        between: Duration::from_millis(rng.u64(300..1500)),
    }
}

#[test]
fn random_chains() {
    let links = common::ok(Scratch::new());
    for seed in seeds() {
        let chain = chain(seed, &links);
        let names: Vec<_> = chain.links.iter().map(|tool| format!("{tool:?}")).collect();
        println!("seed {seed}: {} {:?}", names.join(", "), chain.load.mix);
        let report = common::ok(chain.run());
        if report.given_up > 0 {
            println!("seed {seed}: the stock tool could not prepare a delta of its own");
        }
        assert!(report.tables > 5 && report.load.changes > 50, "too little happened: {report:?}");
    }
}
