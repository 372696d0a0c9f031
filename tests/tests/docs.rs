//! What README.md and docs/ show is what a user gets: every SQL block runs, and every result shown has its columns and values.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use tests::{Cluster, Settings};

/// A block of SQL, and the result that the page shows below it.
struct Example {
    sql: String,
    result: Option<String>,
}

fn pages() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(pages)
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut block: Option<(String, String)> = None;
    for line in page.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some((kind.to_owned(), String::new())),
            (Some((kind, text)), Some(_)) => {
                match (kind.as_str(), examples.last_mut()) {
                    ("sql", _) => examples.push(Example {
                        sql: text.clone(),
                        result: None,
                    }),
                    ("text", Some(example)) => example.result = Some(text.clone()),
                    _ => {}
                }
                block = None;
            }
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    examples
}

/// Lines of a psql table without what depends on the width of a terminal or the number of rows.
fn table(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.trim_end().to_owned())
        .filter(|line| line.contains('|'))
        .collect()
}

#[test]
fn every_example_of_the_documentation_does_what_the_page_says() -> Result<()> {
    let mut run = 0;
    for path in pages()? {
        let page = fs::read_to_string(&path)?;
        let cluster = Cluster::start(Settings::new())?;
        if !page.contains("\nCREATE EXTENSION pg_backstop;\n") {
            cluster.text("CREATE EXTENSION pg_backstop")?;
        }
        for example in examples(&page) {
            let script = cluster.place("example.sql");
            fs::write(&script, &example.sql)?;
            let script = script.display().to_string();
            let told = cluster
                .client("psql", &["-X", "-v", "ON_ERROR_STOP=1", "-f", &script])
                .with_context(|| format!("{}:\n{}", path.display(), example.sql))?;
            if let Some(result) = &example.result {
                let shown = table(result);
                let real = table(&told);
                ensure!(
                    !shown.is_empty() && real.ends_with(&shown),
                    "{} shows\n{result}but the result is\n{told}",
                    path.display()
                );
            }
            run += 1;
        }
    }
    ensure!(run >= 10, "only {run} examples were found");
    Ok(())
}
