//! The figures of the guide are what the code draws.

use std::{fmt::Write, fs, path::PathBuf};

use feedback_alignment::{
    FeedbackRule::{self, Bp, Dfa, Drtp, Fa, Ifa, Kp, SDfa},
    Route,
};

fn figure(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "src", "guide", name].iter().collect()
}

/// The routes of some rules side by side, as a part of a page.
fn side_by_side(rules: &[FeedbackRule]) -> String {
    let mut html = String::from(
        "\n<div style=\"display: flex; flex-wrap: wrap; gap: 1em 3em; justify-content: center; margin: 1.5em 0\">\n",
    );
    for rule in rules {
        let picture = rule.route(4).unwrap().picture();
        write!(
            html,
            "<figure style=\"margin: 0; text-align: center\">\n{picture}<figcaption>{rule}</figcaption>\n</figure>\n"
        )
        .unwrap();
    }
    html + "</div>\n\n"
}

/// The files, and what should stand in them.
fn figures() -> [(&'static str, String); 2] {
    [
        ("four_rules.html", side_by_side(&[Bp, Fa, Dfa, Ifa])),
        ("relatives.html", side_by_side(&[SDfa, Drtp, Kp])),
    ]
}

#[test]
fn figures_are_those_of_the_routes() {
    for (name, expected) in figures() {
        let found = fs::read_to_string(figure(name)).unwrap();
        assert!(
            found == expected,
            "{name} is out of date: WRITE=1 cargo test --test suite write_figures -- --ignored"
        );
    }
}

#[test]
#[ignore = "writes the figures anew"]
fn write_figures() {
    assert!(std::env::var_os("WRITE").is_some(), "only if asked to, by WRITE=1");
    for (name, text) in figures() {
        fs::write(figure(name), text).unwrap();
    }
}

/// Numbers of elements in a picture.
fn count(route: &Route, element: &str) -> usize {
    route.picture().matches(element).count()
}

#[test]
fn every_hop_is_an_arrow_and_every_layer_a_box() {
    for rule in FeedbackRule::all() {
        for layers in [1, 2, 4, 12] {
            let route = rule.route(layers).unwrap();
            assert_eq!(count(&route, "<rect"), layers + 1, "{route}"); // And the input.
            let arcs = route.picture().matches('A').count() / 2;
            assert_eq!(arcs, route.hops().len(), "{route}");
            assert!(!route.picture().contains("NaN"));
        }
    }
    assert_eq!(count(&Route::new(0, []).unwrap(), "<rect"), 1);
}

#[test]
fn a_picture_tells_matrices_and_signals_apart() {
    let labels = |text: &str| {
        let picture = text.parse::<Route>().unwrap().picture();
        let inner = |part: &str| Some(part.split_once('>')?.1.split_once('<')?.0.to_owned());
        picture.split("<text").skip(1).filter_map(inner).collect::<Vec<_>>()
    };
    let has = |text: &str, label: &str| labels(text).iter().any(|one| one == label);
    assert!(has("3:W(e)->1,W(1)->0", "W₃ᵀ") && has("3:W(e)->1,W(1)->0", "W₂ᵀ"));
    assert!(has("3:B(e)->0,W(0)->1", "B₁") && has("3:B(t)->0", "target t"));
    // Up through the weights of the layer itself: twice, as the grey arrow has the name as well.
    assert_eq!(labels("3:B(e)->0,W(0)->1").iter().filter(|label| *label == "W₂").count(), 2);
    assert!(has("3:S(e)->1", "sign W₃ᵀ") && has("3:F(e)->1", "|B₂| sign W₃ᵀ"));
    assert!(has("3:P2(e)->1", "R₂ᵀB₂ᵀ") && has("3:Br1(e)->1", "U₂V₂"));
    let dashed = |text: &str| text.parse::<Route>().unwrap().picture().contains("dasharray");
    assert!(dashed("3:K(e)->1") && dashed("3:M(e)->1") && dashed("3:S(e)->1"));
    assert!(!dashed("3:R(e)->1") && !dashed("3:W(e)->1"));
}

/// Whatever stands in an image of a page may not end the page's own text.
#[test]
fn a_picture_has_no_blank_line_and_no_bare_angle() {
    for text in ["4:B(ternary>0.1)->2,B(centred>0.5)->1,B(t)->0,N(2)->1", "2:B(sign)->0"] {
        let picture = text.parse::<Route>().unwrap().picture();
        assert!(!picture.contains("\n\n"));
        assert!(picture.contains("<title>") && !picture.contains(">0.1"));
    }
}
