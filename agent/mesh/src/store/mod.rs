//! Files in, objects out. A pure state: the caller reads the files. What cannot be read keeps its last good version,
//! and nothing else is touched by it. [`ObjectStore`] does the same for objects that come one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::crd::{self, Header, Kind, Mark, Node, Object};
use crate::finding::{Finding, Severity, code};
use crate::snapshot::Snapshot;
use crate::source::ObjectRef;
use crate::validate;

pub(crate) mod documents;
mod objects;
#[cfg(test)]
mod objects_tests;
mod reader;
#[cfg(test)]
mod tests;

pub use objects::{Change, Changes, ObjectId, ObjectStore, Pending, ResourceId, Version};
pub use reader::{Reader, Reading};

use documents::{Document, Part};

/// The largest file that is read: a cluster's worth of manifests is below it, and a mistake (a log, a core) above.
pub const MAX_FILE_BYTES: usize = 8 << 20;

/// The files that were given, and what is in force of each.
#[derive(Clone, Debug, Default)]
pub struct Store {
    files: BTreeMap<Arc<str>, File>,
    /// What was in force before the first file, whichever file that was from.
    before: Box<Snapshot>,
}

/// What is in force of one file.
#[derive(Clone, Debug, Default)]
struct File {
    /// In the order of the text; an object that is there twice is a conflict, which [`Store::assemble`] reports.
    objects: Vec<Held>,
    /// About the file's newest text.
    findings: Vec<Finding>,
    /// Something in it does not tell whose it is, so nothing of what was in force before it may vanish.
    unclear: bool,
    /// Kinds that are ignored.
    ignored: BTreeMap<Arc<str>, Finding>,
}

#[derive(Clone, Debug)]
struct Held {
    object: Object,
    /// What the object asks for beyond this version.
    findings: Vec<Finding>,
}

/// What becomes of a policy that protects and that was never good.
pub(crate) const STAND_IN: &str = "what it could protect refuses until it is mended";

impl Store {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, on top of what is in force: an object of a file that is refused keeps its version of there.
    pub fn on_top_of(before: Snapshot) -> Self {
        Self { files: BTreeMap::new(), before: Box::new(before) }
    }

    /// The file now has this text: one or more documents, YAML or JSON.
    pub fn set_file(&mut self, file: &str, text: &str) {
        let name: Arc<str> = file.into();
        // Taken out only when the new one is there: a fault of the reader must not lose the old.
        let nothing = File::default();
        let old = self.files.get(&name).unwrap_or(&nothing);
        let new = if text.len() > MAX_FILE_BYTES {
            let message =
                format!("the file has more than the {MAX_FILE_BYTES} bytes that are read; what it held before stays");
            let finding = about_file(&name, Mark::default(), message, None);
            File { findings: vec![finding], unclear: true, ..old.clone() }
        } else {
            FileReader::new(&name, &old.objects, &self.before).read(text)
        };
        self.files.insert(name, new);
    }

    /// The file is gone, and its objects with it.
    pub fn remove_file(&mut self, file: &str) {
        self.files.remove(file);
    }

    /// What is wrong with the files, each finding once.
    pub fn findings(&self) -> Vec<Finding> {
        self.assemble().1
    }

    /// The objects in force.
    pub fn snapshot(&self) -> Snapshot {
        self.assemble().0
    }

    /// Both at once.
    pub fn assemble(&self) -> (Snapshot, Vec<Finding>) {
        let mut snapshot = Snapshot::default();
        let mut findings = Vec::new();
        let mut first: BTreeMap<&ObjectRef, &Held> = BTreeMap::new();
        let mut stand_ins = Vec::new();
        let mut ignored = BTreeSet::new();
        for file in self.files.values() {
            findings.extend(file.findings.iter().cloned());
            findings.extend(file.ignored.iter().filter(|(kind, _)| ignored.insert(*kind)).map(|(_, f)| f.clone()));
            for held in &file.objects {
                let name = &held.object.meta().object;
                if held.object.is_stand_in() {
                    stand_ins.push(held);
                } else if snapshot.insert(held.object.clone()) {
                    first.insert(name, held);
                    findings.extend(held.findings.iter().cloned());
                } else {
                    findings.push(duplicate(name, held, first.get(name).copied()));
                }
            }
        }
        if self.files.values().any(|file| file.unclear) {
            for object in self.before.objects() {
                snapshot.insert(object);
            }
        }
        // A good version in any file comes before what stands in for a broken one.
        for held in stand_ins {
            snapshot.insert(held.object.clone());
        }
        (snapshot, findings)
    }
}

fn duplicate(name: &ObjectRef, held: &Held, first: Option<&Held>) -> Finding {
    let place = first.and_then(|h| h.object.meta().at()).map(|at| format!(" at {at}")).unwrap_or_default();
    Finding {
        severity: Severity::Error,
        code: code::DUPLICATE,
        object: Some(name.clone()),
        at: held.object.meta().at().cloned(),
        message: format!("the object is there twice; the one{place} is in force, this one is not"),
        help: Some("remove one of them".to_owned()),
    }
}

/// A finding of an object that is refused, with what becomes of it.
fn refused(mut finding: Finding, stays: &str) -> Finding {
    if finding.severity == Severity::Error {
        finding.message.push_str("; ");
        finding.message.push_str(stays);
    }
    finding
}

fn about_file(file: &Arc<str>, mark: Mark, message: String, help: Option<String>) -> Finding {
    Finding { severity: Severity::Error, code: code::SYNTAX, object: None, at: Some(mark.in_file(file)), message, help }
}

/// Reads one text of one file.
struct FileReader<'o> {
    file: &'o Arc<str>,
    old: &'o [Held],
    before: &'o Snapshot,
    new: File,
    /// Broken documents that tell what they are about.
    broken: BTreeSet<ObjectRef>,
    /// A broken document does not: everything that the readable ones do not hold stays.
    keep_all: bool,
}

impl<'o> FileReader<'o> {
    fn new(file: &'o Arc<str>, old: &'o [Held], before: &'o Snapshot) -> Self {
        Self { file, old, before, new: File::default(), broken: BTreeSet::new(), keep_all: false }
    }

    fn read(mut self, text: &str) -> File {
        for document in documents::split(text) {
            for part in documents::read(document) {
                match part {
                    Part::Object(node, within) => self.object(&node, within.as_ref()),
                    Part::Broken(document, error) => self.broken(document, &error),
                }
            }
        }
        let mut kept = Vec::new();
        {
            let there: BTreeSet<&ObjectRef> = self.new.objects.iter().map(|h| &h.object.meta().object).collect();
            for held in self.old {
                let name = &held.object.meta().object;
                if !there.contains(name) && (self.keep_all || self.broken.contains(name)) {
                    kept.push(held.clone());
                }
            }
        }
        self.new.objects.extend(kept);
        self.new.unclear = self.keep_all;
        self.new
    }

    fn broken(&mut self, document: Document<'_>, error: &crd::SyntaxError) {
        let guess = documents::guess(document.text);
        let known =
            guess.and_then(|(kind, namespace, name)| {
                self.old.iter().filter(|held| !held.object.is_stand_in()).map(|held| &held.object.meta().object).find(
                    |old| *old.kind == *kind && *old.name == *name && namespace.is_none_or(|n| *old.namespace == *n),
                )
            });
        let stays = if let Some(known) = known {
            self.broken.insert(known.clone());
            format!("the last good version of {known} stays")
        } else if let Some(object) = guess.and_then(|(kind, namespace, name)| self.good_before(kind, namespace, name)) {
            let stays = format!("the last good version of {} stays", object.meta().object);
            self.new.objects.push(Held { object, findings: Vec::new() });
            stays
        } else if let Some(object) = guess
            .filter(|(kind, ..)| document.text.contains(crd::group_of_protection(kind)))
            .and_then(|(kind, namespace, name)| {
                let namespace = namespace.filter(|n| !n.is_empty()).unwrap_or(crd::DEFAULT_NAMESPACE);
                let object = ObjectRef {
                    kind: kind.into(),
                    group: crd::group_of_protection(kind).into(),
                    namespace: namespace.into(),
                    name: name.into(),
                };
                crd::stand_in(None, &object, Some(error.mark.in_file(self.file)))
            })
        {
            let refused = format!("{}: {STAND_IN}", object.meta().object);
            self.new.objects.push(Held { object, findings: Vec::new() });
            refused
        } else if !self.old.is_empty() {
            self.keep_all = true;
            "what the file held before stays".to_owned()
        } else if self.before.objects().next().is_some() {
            self.keep_all = true;
            "what was in force before stays".to_owned()
        } else {
            "the document is left out".to_owned()
        };
        let help = documents::hint(document, error);
        let message = format!("no YAML: {}; {stays}", error.message);
        self.new.findings.push(about_file(self.file, error.mark, message, help));
    }

    /// What was in force before the first file, of an object that a broken text is about.
    fn good_before(&self, kind: &str, namespace: Option<&str>, name: &str) -> Option<Object> {
        self.before.objects().find(|object| {
            let own = &object.meta().object;
            let is_own = *own.kind == *kind && *own.name == *name && namespace.is_none_or(|one| *own.namespace == *one);
            is_own && !object.is_stand_in()
        })
    }

    fn object(&mut self, node: &Node, within: Option<&Header>) {
        if let Some(what) = within.is_none().then(|| crd::no_object(node, self.file)).flatten() {
            self.new.findings.push(crd::passed_over(what, node.mark.in_file(self.file)));
            return;
        }
        let header = match crd::header(node, within) {
            Ok(header) => header,
            Err(fault) => {
                // Whose it was cannot be told, so nothing of the file may vanish because of it.
                self.keep_all = true;
                let finding = validate::of_fault(&fault, None, Some(self.file));
                self.new.findings.push(refused(finding, "it is not in force, and what the file held before stays"));
                return;
            }
        };
        match header.kind {
            Kind::List => self.items(node, &header),
            Kind::Known => self.known(node, &header),
            Kind::NotServed(instead) => {
                self.new.findings.extend(validate::unserved(node, &header, Some(self.file)));
                let place = Some(node.mark.in_file(self.file));
                self.new.findings.push(crd::not_served(header.object, place, instead));
            }
            Kind::Foreign => {
                let wrong = validate::unserved(node, &header, Some(self.file));
                if !wrong.is_empty() {
                    self.new.findings.extend(wrong.into_iter().map(|finding| refused(finding, "it is not in force")));
                    return;
                }
                let kind = Arc::clone(&header.object.kind);
                let finding = Finding {
                    severity: Severity::Info,
                    code: code::IGNORED_KIND,
                    at: Some(node.mark.in_file(self.file)),
                    message: format!("objects of kind {kind} are not looked at"),
                    object: Some(header.object),
                    help: None,
                };
                self.new.ignored.entry(kind).or_insert(finding);
            }
        }
    }

    fn items(&mut self, node: &Node, list: &Header) {
        match crd::items(node) {
            Ok(items) => items.iter().for_each(|item| self.object(item, Some(list))),
            Err(fault) => {
                self.keep_all = true;
                let finding = validate::of_fault(&fault, None, Some(self.file));
                self.new.findings.push(refused(finding, "what the file held before stays"));
            }
        }
    }

    fn known(&mut self, node: &Node, header: &Header) {
        match validate::decode(node, header, Some(self.file)) {
            Ok(decoded) => self.new.objects.push(Held { object: decoded.object, findings: decoded.findings }),
            Err(findings) => {
                let good = |held: &&Held| !held.object.is_stand_in() && held.object.meta().object == header.object;
                let place = Some(node.mark.in_file(self.file));
                let stays = if self.old.iter().any(|held| good(&held)) {
                    self.broken.insert(header.object.clone());
                    "its last good version stays in force"
                } else if let Some(object) = self.before.get(&header.object).filter(|before| !before.is_stand_in()) {
                    self.new.objects.push(Held { object, findings: Vec::new() });
                    "its last good version stays in force"
                } else if let Some(object) = crd::stand_in(Some(node), &header.object, place) {
                    self.new.objects.push(Held { object, findings: Vec::new() });
                    STAND_IN
                } else {
                    "it is not in force"
                };
                self.new.findings.extend(findings.into_iter().map(|finding| refused(finding, stays)));
            }
        }
    }
}
