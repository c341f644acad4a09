//! The data of the three tables, prepared as the paper does.

use std::path::Path;

use feedback_alignment::{
    Shape,
    data::{cifar, idx},
};

use crate::{
    common::{self, Result, Split},
    folders::{self, CIFAR10, CIFAR100, MNIST},
    lines::STAND_IN,
    pixels::{scale, whiten},
    rows::Row,
};

/// Samples, what to call them and the shape of one.
pub struct Data {
    pub name: &'static str,
    pub input: Shape,
    pub classes: usize,
    pub split: Split,
}

/// The data of a row, from a folder with the files of MNIST, CIFAR-10 or CIFAR-100; without one,
/// the small digits stand in for MNIST.
pub fn load(row: &Row, folder: Option<&Path>) -> Result<Data> {
    let Some(folder) = folder else {
        if row.table != 1 {
            let (name, hint) =
                if row.table == 2 { ("CIFAR-10", CIFAR10) } else { ("CIFAR-100", CIFAR100) };
            let table = row.table;
            return Err(format!("table {table} is of {name}: give --data DIR\n\n{hint}").into());
        }
        let split = common::digits()?;
        let input = split.train.features().into();
        return Ok(Data { name: STAND_IN, input, classes: 10, split });
    };
    let (name, train, test) = match row.table {
        1 => {
            let idx::Mnist { train, test } = folders::load(folder, MNIST, |it| idx::load_dir(it))?;
            ("MNIST", train, test)
        }
        2 => {
            let cifar::Cifar { train, test } =
                folders::load(folder, CIFAR10, |it| cifar::load10_dir(it))?;
            ("CIFAR-10", train, test)
        }
        _ => {
            let cifar::Cifar { train, test } =
                folders::load(folder, CIFAR100, |it| cifar::load100_dir(it, cifar::Labels::Fine))?;
            ("CIFAR-100", train, test)
        }
    };
    let input = if row.is_convolutional() { cifar::SHAPE.into() } else { train.features().into() };
    let classes = train.classes().ok_or("the images have no labels")?;
    let split = if row.is_convolutional() { whiten(train, test)? } else { scale(train, test)? };
    Ok(Data { name, input, classes, split })
}
