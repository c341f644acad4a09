//! The readers, what is fed to them, and what is done with what they take.

use std::{fs, io::Write, path::Path};

use clap::ValueEnum;
use feedback_alignment::{
    Adam, Conv2d, Dataset, Error, FeedbackRule, MaxPool2d, Network, Result, RmsProp, Scaling, Sgd,
    Trainer,
    data::{Whitening, cifar, csv, idx},
    nalgebra::DMatrix,
};
use rand::{Rng, RngExt};

use crate::{change, craft::Craft};

/// A reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Idx,
    Cifar10,
    Cifar100,
    Csv,
    Network,
    Parameters,
    Checkpoint,
    Whitening,
    Scaling,
}

/// Whole files to begin with.
pub struct WholeFiles {
    bytes: Vec<Vec<u8>>,
    crafts: Vec<Craft>,
}

fn dense() -> Network<f32> {
    Network::builder(4).dropout(0.1).dense(3).batch_norm().tanh().dense(2).build().expect("valid")
}

fn image() -> Network<f32> {
    let builder = Network::builder((1, 5, 5)).conv2d(Conv2d::new(2, 3)).leaky_relu(0.2);
    builder.max_pool2d(MaxPool2d::new(2, 1)).dense_without_bias(3).build().expect("valid")
}

fn data() -> Dataset<f32> {
    let x = DMatrix::from_fn(4, 6, |i, j| ((i * 5 + j * 3) % 7) as f32 / 7.0);
    Dataset::new(x, vec![0, 1, 0, 1, 1, 0]).expect("valid")
}

impl Target {
    /// Whole files of this kind, and of others.
    pub fn whole_files(self, folder: &Path) -> WholeFiles {
        let path = folder.join("whole");
        let mut crafts = Vec::new();
        let mut take = |saved: Result<()>| {
            saved.expect("can be saved");
            crafts.push(Craft::open(&path));
        };
        let whitening = Whitening::fit(&data(), 1e-5, |_| ()).expect("valid");
        match self {
            Self::Network | Self::Parameters => {
                [dense(), image()].iter().for_each(|n| take(n.save(&path)))
            }
            Self::Checkpoint => {
                for rule in FeedbackRule::all() {
                    let mut network = dense();
                    if rule == FeedbackRule::Shallow {
                        // Without feedback batch normalisation is refused.
                        network.freeze(0).expect("a layer");
                    }
                    let builder = || Trainer::builder(network.clone()).rule(rule).batch_size(3);
                    for builder in [
                        builder().optimizer(Sgd::default()),
                        builder().optimizer(RmsProp::default()).max_norm(2.0),
                        builder().optimizer(Adam::default()).adversarial(0.1).drop_last(true),
                    ] {
                        let mut trainer = builder.build().expect("valid");
                        trainer.epoch(&data()).expect("can be trained");
                        take(trainer.save(&path));
                    }
                }
            }
            Self::Whitening => take(whitening.save(&path)),
            Self::Scaling => {
                take(Scaling::standardize(&data()).and_then(|scaling| scaling.save(&path)));
                take(Scaling::<f32>::constant(1.0, 2.0).and_then(|scaling| scaling.save(&path)));
            }
            Self::Idx | Self::Cifar10 | Self::Cifar100 | Self::Csv => {}
        }
        if !matches!(self, Self::Idx | Self::Cifar10 | Self::Cifar100 | Self::Csv) {
            // What belongs into another kind of file.
            take(whitening.save(&path));
            take(dense().save(&path));
        }
        let bytes = match self {
            Self::Idx => vec![
                [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 3][..], &[7; 12]].concat(),
                [&[0, 0, 13, 1, 0, 0, 0, 2][..], &1_f32.to_be_bytes(), &2_f32.to_be_bytes()]
                    .concat(),
                [&[0, 0, 9, 2, 0, 0, 0, 1, 0, 0, 0, 3][..], &[255, 0, 1]].concat(),
            ],
            Self::Cifar10 => vec![[&[3][..], &[9; 3072], &[9], &[1; 3072]].concat()],
            Self::Cifar100 => vec![[&[3, 99][..], &[9; 3072]].concat()],
            _ => Vec::new(),
        };
        WholeFiles { bytes, crafts }
    }

    /// An input for the reader.
    pub fn input(self, whole: &WholeFiles, rng: &mut impl Rng) -> Vec<u8> {
        let mut input = match self {
            Self::Csv => {
                const TABLE: &str = "label,a,b\n0,1,2.5\n1,-3,255\n\"2\",4,\"5\"\n";
                change::text(TABLE, &[',', '\n', '"'], rng).into_bytes()
            }
            _ if whole.crafts.is_empty() => {
                let mut input = change::pick(&whole.bytes, rng).clone();
                change::bytes(&mut input, rng);
                input
            }
            _ => {
                let kinds = whole.crafts.len() - 2;
                return change::tensors(
                    &whole.crafts[rng.random_range(0..kinds)],
                    &whole.crafts,
                    rng,
                );
            }
        };
        if rng.random_range(0..4) == 0 {
            change::bytes(&mut input, rng);
        }
        if rng.random_range(0..8) == 0 {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&input).expect("memory takes what is written");
            input = encoder.finish().expect("memory takes what is written");
            if rng.random_range(0..4) == 0 {
                change::bytes(&mut input, rng);
            }
        }
        input
    }

    /// Reads a file and uses what it holds; returns what came of it.
    pub fn read(self, path: &Path) -> String {
        let again = path.with_extension("again");
        let result = match self {
            Self::Idx => {
                let labels = path.with_extension("labels");
                fs::write(&labels, [0, 0, 8, 1, 0, 0, 0, 2, 0, 1]).expect("can be written");
                let _ = idx::read::<f64>(path);
                idx::load::<f32>(path, &labels).and_then(|data| use_data(&data))
            }
            Self::Cifar10 => cifar::load10::<f32>(path).and_then(|data| use_data(&data)),
            Self::Cifar100 => {
                let load = |labels| cifar::load100::<f64>(path, labels);
                load(cifar::Labels::Coarse).and_then(|_| load(cifar::Labels::Fine)).map(|_| ())
            }
            Self::Csv => {
                let column = || csv::Column::Index(0);
                let formats = [csv::Target::Class(column()), csv::Target::Text(column())]
                    .map(|target| csv::Format { target, ..csv::Format::default() });
                let _ = csv::load_table::<f64>(path, &formats[1]);
                csv::load::<f32>(path, &formats[0]).and_then(|data| use_data(&data))
            }
            Self::Network => Network::<f32>::load(path).and_then(|network| {
                network.save(&again)?;
                assert_eq!(Network::load(&again)?, network);
                use_network(&network)
            }),
            Self::Parameters => {
                let mut network = dense();
                let loaded = network.load_parameters(path);
                assert!(loaded.is_ok() || network == dense(), "half loaded");
                loaded.and_then(|()| use_network(&network))
            }
            Self::Checkpoint => Trainer::<f32>::load(path).and_then(|mut trainer| {
                trainer.save(&again)?;
                let mut twin = Trainer::<f32>::load(&again)?;
                let (one, other) = (trainer.epoch(&data()), twin.epoch(&data()));
                assert_eq!(one.ok(), other.ok());
                assert_eq!(trainer.network(), twin.network());
                Ok(())
            }),
            Self::Whitening => Whitening::<f32>::load(path).and_then(|whitening| {
                whitening.save(&again)?;
                assert_eq!(Whitening::load(&again)?, whitening);
                data().whitened(&whitening).map(|_| ())
            }),
            Self::Scaling => Scaling::<f32>::load(path).and_then(|scaling| {
                scaling.save(&again)?;
                assert_eq!(Scaling::load(&again)?, scaling);
                scaling.invert(&scaling.apply(&data().inputs())?).map(|_| ())
            }),
        };
        match result {
            Ok(()) => "taken".to_owned(),
            Err(error) => {
                assert!(error.to_string().len() < 1 << 20, "a message as long as a book");
                name(&error)
            }
        }
    }
}

/// The name of the variant.
fn name(error: &Error) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

fn use_data(data: &Dataset<f32>) -> Result<()> {
    assert!(data.inputs().iter().all(|x| x.is_finite()));
    let network = Network::builder(data.features()).dense(3).build()?;
    let mut trainer = Trainer::builder(network).threads(1).build()?;
    let _ = (trainer.evaluate(data), trainer.epoch(data));
    Ok(())
}

fn use_network(network: &Network<f32>) -> Result<()> {
    if network.input_len() > 1 << 12 {
        return Ok(());
    }
    let x = DMatrix::from_element(network.input_len(), 3, 0.5);
    network.predict(&x)?;
    let mut trainer = Trainer::builder(network.clone()).threads(1).build()?;
    trainer.step(&x, &[0; 3]).map(|_| ())
}
