//! A report as one HTML page that needs nothing else: no script, no font, no other file.

use std::fmt::Write;

/// Part of a page.
#[derive(Debug, Clone)]
pub enum Part {
    /// A heading.
    Heading(String),
    /// Plain text.
    Text(String),
    /// A table: its head, then its rows.
    Table(Vec<Vec<String>>),
    /// A plot, as SVG.
    Plot(String),
}

/// One page that needs nothing else: no script, no font, no file.
pub fn page(title: &str, parts: &[Part]) -> String {
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\
         <style>{STYLE}</style></head><body><h1>{0}</h1>\n",
        escape(title)
    );
    for part in parts {
        let _ = match part {
            Part::Heading(text) => writeln!(html, "<h2>{}</h2>", escape(text)),
            Part::Text(text) => writeln!(html, "<p>{}</p>", escape(text)),
            Part::Plot(svg) => writeln!(html, "<figure>{svg}</figure>"),
            Part::Table(rows) => writeln!(html, "{}", table(rows)),
        };
    }
    html + "</body></html>\n"
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;\
    padding:0 1em;color:#222}table{border-collapse:collapse;margin:1em 0}th,td{padding:.25em .8em;\
    border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}\
    th:first-child,td:first-child{text-align:left}th{border-bottom:2px solid #999}\
    figure{margin:1em 0}svg{max-width:100%;height:auto}";

fn table(rows: &[Vec<String>]) -> String {
    let mut html = String::from("<table>");
    for (index, row) in rows.iter().enumerate() {
        let cell = if index == 0 { "th" } else { "td" };
        html += "<tr>";
        for text in row {
            let _ = write!(html, "<{cell}>{}</{cell}>", escape(text));
        }
        html += "</tr>";
    }
    html + "</table>"
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_parts_and_refers_to_nothing() {
        let rows =
            vec![vec!["class".to_owned(), "p99".to_owned()], vec!["a<b".into(), "65".into()]];
        let parts = [
            Part::Heading("Loss".to_owned()),
            Part::Text("5% & more".to_owned()),
            Part::Table(rows),
            Part::Plot("<svg></svg>".to_owned()),
        ];
        let html = page("Weak networks", &parts);
        for text in ["<h1>Weak", "<h2>Loss", "5% &amp; more", "<th>p99", "<td>a&lt;b", "<svg>"] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!html.contains("http") && !html.contains("src="));
    }
}
