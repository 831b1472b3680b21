//! The servers that everything else is tested with: each generation runs on this machine, and
//! its own tool makes a copy that its own server starts on.

#![allow(clippy::unwrap_used)]

mod common;

use harness::proof::restore_and_boot;
use harness::{Generation, Result, Scratch, ServerOptions, Tool};

fn stock_tool_works(generation: Generation) -> Result<()> {
    let options = ServerOptions::of(generation);
    let server = options.start()?;
    let version = server.client()?.scalar("SELECT VERSION()")?.unwrap_or_default();
    assert!(version.starts_with(&format!("{}.", generation.series())), "{version}");
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=InnoDB")?;
    server.run("INSERT INTO d.t SELECT seq FROM d.seq_1_to_1000")?;

    let scratch = Scratch::new()?;
    let (backup, copy) = (scratch.join("backup"), scratch.join("copy"));
    let tool = Tool::Stock(generation);
    tool.run_backup(&server, &backup)?;
    tool.run_prepare(&backup)?;
    let copy = restore_and_boot(&tool, &backup, &copy, &options)?;
    let rows = copy.client()?.scalar("SELECT COUNT(*) FROM d.t")?;
    assert_eq!(rows.as_deref(), Some("1000"));
    Ok(())
}

/// Plugins that other tests load are there, and the server's libraries suffice for them.
fn plugins_load(generation: Generation) -> Result<()> {
    let mut plugins = vec!["ha_rocksdb", "ha_connect", "ha_mroonga", "ha_oqgraph", "ha_spider"];
    plugins.push("file_key_management");
    if generation >= Generation::V10_11 {
        plugins.extend(["provider_bzip2", "provider_lz4", "provider_lzma"]);
        plugins.extend(["provider_lzo", "provider_snappy", "hashicorp_key_management"]);
    }
    for plugin in plugins {
        let file = generation.plugin_dir()?.join(format!("{plugin}.so"));
        assert!(file.exists(), "{}", file.display());
    }
    let mut server = ServerOptions::of(generation).arg("--plugin-load-add=ha_rocksdb");
    if generation >= Generation::V10_11 {
        server = server.arg("--plugin-load-add=provider_lz4;provider_snappy");
    }
    let server = server.start()?;
    server.run("CREATE DATABASE d")?;
    server.run("CREATE TABLE d.t (a INT PRIMARY KEY) ENGINE=RocksDB")
}

macro_rules! on {
    ($name:ident, $generation:ident) => {
        mod $name {
            #[test]
            fn its_own_tool_works() {
                super::common::ok(super::stock_tool_works(super::Generation::$generation));
            }

            #[test]
            fn its_plugins_load() {
                super::common::ok(super::plugins_load(super::Generation::$generation));
            }
        }
    };
}

on!(on_10_5, V10_5);
on!(on_10_11, V10_11);
on!(on_11_8, V11_8);
