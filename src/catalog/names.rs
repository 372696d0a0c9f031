//! What the names in a statement were found to mean, and what runs when it does.
//!
//! PostgreSQL looks names up when it parses a statement, and again whenever something has changed that the statement may rest on.
//! So the question whether they still mean our own objects is asked each time: after the locks on all relations are taken, from
//! when on nobody can exchange them, and before the statement is planned, which may already call functions in it.

use std::cell::RefCell;
use std::ffi::c_void;

use pgrx::{pg_guard, pg_sys};

use super::Extension;
use super::trust::{is_superuser, name, role_name};
use crate::error::{Error, Result};

/// What a parsed statement names, in the text or through views, without what is PostgreSQL's own.
#[derive(Default)]
pub struct Names {
    /// Each relation, with the lock that planning takes on it.
    relations: Vec<(pg_sys::Oid, pg_sys::LOCKMODE)>,
    /// Relations that it writes to.
    written: Vec<pg_sys::Oid>,
    functions: Vec<pg_sys::Oid>,
    domains: Vec<pg_sys::Oid>,
}

impl Names {
    /// Collects what is named in the queries of a plan.
    ///
    /// # Safety
    /// `plan` must be a plan of SPI's, and valid.
    pub unsafe fn of(plan: pg_sys::SPIPlanPtr) -> Self {
        let mut names = Self::default();
        let context = std::ptr::from_mut(&mut names).cast();
        // SAFETY: a list of CachedPlanSource, each with a list of Query; both live as long as the plan is valid.
        unsafe {
            for source in nodes::<pg_sys::CachedPlanSource>(pg_sys::SPI_plan_get_plan_sources(plan)) {
                for query in nodes::<pg_sys::Node>((*source).query_list) {
                    collect(query, context);
                }
            }
        }
        names
    }

    /// Takes the locks that planning will ask for, so that it finds them taken.
    pub fn lock(&self) {
        for (relation, mode) in &self.relations {
            // Before 16, a view that was replaced by its query asks for none here, but with the tables in it.
            if *mode == pg_sys::NoLock as pg_sys::LOCKMODE {
                continue;
            }
            // SAFETY: ordinary locks of the transaction; of a relation that is gone too.
            unsafe { pg_sys::LockRelationOid(*relation, *mode) };
        }
    }

    /// Refuses a statement in which a name means what is neither the extension's nor PostgreSQL's.
    ///
    /// # Errors
    /// [`Error::ForeignObject`].
    pub fn check_membership(&self, extension: &Extension) -> Result<()> {
        let relations = self.relations.iter().map(|(relation, _)| *relation);
        check_members(extension, pg_sys::RelationRelationId, relations)?;
        check_members(extension, pg_sys::ProcedureRelationId, self.functions.iter().copied())?;
        check_members(extension, pg_sys::TypeRelationId, self.domains.iter().copied())
    }

    /// Refuses to write to a table if that would run what somebody who is no superuser has attached to it, with our rights: a function
    /// of theirs, or one of PostgreSQL's with a condition or arguments of theirs. Needs the locks: while they are held, no trigger is
    /// added.
    ///
    /// # Errors
    /// [`Error::ForeignTrigger`], [`Error::UnfitTrigger`].
    pub fn check_triggers(&self, extension: &Extension) -> Result<()> {
        self.written
            .iter()
            .try_for_each(|table| check_triggers_of(extension, *table))
    }
}

/// The pointers in a list.
///
/// # Safety
/// `list` must be NULL or a list of pointers to `T`, and stay as it is while the iterator lives.
unsafe fn nodes<T>(list: *mut pg_sys::List) -> impl Iterator<Item = *mut T> {
    // SAFETY: as the caller says.
    let count = unsafe { list.as_ref() }.map_or(0, |list| usize::try_from(list.length).unwrap_or(0));
    // SAFETY: a list has as many elements as it says.
    (0..count).map(move |place| unsafe { (*(*list).elements.add(place)).ptr_value.cast() })
}

/// What initdb made, no user can have made; what superusers add to pg_catalog is PostgreSQL's as well.
fn is_postgresqls_own(object: pg_sys::Oid) -> bool {
    object.to_u32() < pg_sys::FirstNormalObjectId
}

/// A `tree_walker_callback`.
#[pg_guard]
unsafe extern "C-unwind" fn collect(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: the context is the Names of the one who began the walk; a node is what its tag says.
    unsafe {
        let names = &mut *context.cast::<Names>();
        match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                names.note_target(query);
                let flags = pg_sys::QTW_EXAMINE_RTES_BEFORE as i32;
                return pg_sys::query_tree_walker(query, Some(collect), context, flags);
            }
            pg_sys::NodeTag::T_RangeTblEntry => {
                names.note_relation(&*node.cast());
                // Whoever walks through the query looks into the entry itself.
                return false;
            }
            pg_sys::NodeTag::T_CoerceToDomain => {
                let domain = (*node.cast::<pg_sys::CoerceToDomain>()).resulttype;
                names.note_domain(domain);
            }
            _ => {}
        }
        pg_sys::check_functions_in_node(node, Some(note_function), context);
        pg_sys::expression_tree_walker(node, Some(collect), context)
    }
}

/// A `check_function_callback`.
#[pg_guard]
unsafe extern "C-unwind" fn note_function(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: as in collect().
    let names = unsafe { &mut *context.cast::<Names>() };
    if !is_postgresqls_own(function) && !names.functions.contains(&function) {
        names.functions.push(function);
    }
    false
}

impl Names {
    /// # Safety
    /// `query` must be a valid one.
    unsafe fn note_target(&mut self, query: *const pg_sys::Query) {
        // SAFETY: as the caller says; the number is a place in the list, counted from 1.
        unsafe {
            let Some(place) = usize::try_from((*query).resultRelation)
                .ok()
                .and_then(|place| place.checked_sub(1))
            else {
                return;
            };
            if let Some(entry) = nodes::<pg_sys::RangeTblEntry>((*query).rtable).nth(place) {
                self.written.push((*entry).relid);
            }
        }
    }

    fn note_relation(&mut self, entry: &pg_sys::RangeTblEntry) {
        // A view that was replaced by its query keeps its OID, since 16.
        let is_relation = matches!(
            entry.rtekind,
            pg_sys::RTEKind::RTE_RELATION | pg_sys::RTEKind::RTE_SUBQUERY
        );
        if !is_relation || is_postgresqls_own(entry.relid) {
            return;
        }
        let lock = (entry.relid, entry.rellockmode);
        if !self.relations.contains(&lock) {
            self.relations.push(lock);
        }
    }

    fn note_domain(&mut self, domain: pg_sys::Oid) {
        if !is_postgresqls_own(domain) && !self.domains.contains(&domain) {
            self.domains.push(domain);
        }
    }
}

fn check_members(
    extension: &Extension,
    catalog: pg_sys::Oid,
    mut objects: impl Iterator<Item = pg_sys::Oid>,
) -> Result<()> {
    let stranger = objects.find(|object| !extension.has(catalog, *object) && !is_in_pg_catalog(catalog, *object));
    match stranger {
        None => Ok(()),
        Some(object) => Err(Error::ForeignObject {
            object: describe(catalog, object),
        }),
    }
}

/// Whether a superuser put it among PostgreSQL's own.
fn is_in_pg_catalog(catalog: pg_sys::Oid, object: pg_sys::Oid) -> bool {
    // SAFETY: looks into the caches.
    let schema = unsafe {
        match catalog {
            pg_sys::RelationRelationId => pg_sys::get_rel_namespace(object),
            pg_sys::ProcedureRelationId => pg_sys::get_func_namespace(object),
            _ => pg_sys::InvalidOid,
        }
    };
    schema == pg_sys::PG_CATALOG_NAMESPACE.into()
}

fn describe(catalog: pg_sys::Oid, object: pg_sys::Oid) -> String {
    let address = pg_sys::ObjectAddress {
        classId: catalog,
        objectId: object,
        objectSubId: 0,
    };
    // SAFETY: gives NULL for what is gone, else a palloc'ed string.
    unsafe { name(pg_sys::getObjectDescription(&address, true)) }
}

/// What is wrong with a trigger.
enum Unfit {
    /// Code of this role would run, which is no superuser.
    Of(pg_sys::Oid),
    /// What anybody can attach.
    ForAnybody(&'static str),
}

fn check_triggers_of(extension: &Extension, table: pg_sys::Oid) -> Result<()> {
    // SAFETY: the table is locked, so its triggers stay; an error unwinds, and transaction abort closes it.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        let unfit = (*relation).trigdesc.as_ref().and_then(|triggers| {
            let count = usize::try_from(triggers.numtriggers).unwrap_or(0);
            (0..count)
                .map(|place| &*triggers.triggers.add(place))
                .find_map(|trigger| Some((name(trigger.tgname), unfit(extension, trigger)?)))
        });
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        match unfit {
            None => Ok(()),
            Some((trigger, Unfit::ForAnybody(why))) => Err(Error::UnfitTrigger {
                trigger,
                table: name(pg_sys::get_rel_name(table)),
                why,
            }),
            Some((trigger, Unfit::Of(role))) => Err(Error::ForeignTrigger {
                trigger,
                table: name(pg_sys::get_rel_name(table)),
                role: role_name(role),
            }),
        }
    }
}

/// What is wrong with a trigger, if anything is. The extension's own functions nobody else can attach. Of others a condition may call
/// any function of PostgreSQL's that runs what it is told to, and functions that PostgreSQL or other extensions bring are for everybody.
/// Behind a foreign key the other table's own triggers follow.
///
/// # Safety
/// The trigger must be one of an open relation.
unsafe fn unfit(extension: &Extension, trigger: &pg_sys::Trigger) -> Option<Unfit> {
    let function = trigger.tgfoid;
    if is_own(extension, function) {
        return None;
    }
    if trigger.tgconstrrelid != pg_sys::InvalidOid {
        let owner = table_owner(trigger.tgconstrrelid);
        if !is_superuser(owner) {
            return Some(Unfit::Of(owner));
        }
    }
    if trigger.tgisinternal {
        return None;
    }
    let owner = function_owner(function);
    if !is_superuser(owner) {
        return Some(Unfit::Of(owner));
    }
    if !trigger.tgqual.is_null() {
        return Some(Unfit::ForAnybody("has a condition"));
    }
    // SAFETY: a plain catalog scan.
    let is_of_extension =
        unsafe { pg_sys::getExtensionOfObject(pg_sys::ProcedureRelationId, function) } != pg_sys::InvalidOid;
    if function.to_u32() < pg_sys::FirstNormalObjectId || is_of_extension {
        return Some(Unfit::ForAnybody("runs a function that anybody can attach"));
    }
    None
}

/// Whether a trigger function is the extension's own. What was is so for good, but for a superuser's hand.
fn is_own(extension: &Extension, function: pg_sys::Oid) -> bool {
    thread_local! {
        static OWN: RefCell<(pg_sys::Oid, Vec<pg_sys::Oid>)> = const { RefCell::new((pg_sys::InvalidOid, Vec::new())) };
    }
    let is_known = OWN.with_borrow(|(of, own)| *of == extension.oid && own.contains(&function));
    if is_known || !extension.has(pg_sys::ProcedureRelationId, function) {
        return is_known;
    }
    OWN.with_borrow_mut(|(of, own)| {
        if *of != extension.oid {
            (*of, *own) = (extension.oid, Vec::new());
        }
        own.push(function);
    });
    true
}

fn function_owner(function: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: reads a row of pg_proc, and releases it after its last use.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if row.is_null() {
            return pg_sys::InvalidOid;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>()).proowner;
        pg_sys::ReleaseSysCache(row);
        owner
    }
}

fn table_owner(table: pg_sys::Oid) -> pg_sys::Oid {
    // SAFETY: reads a row of pg_class, and releases it after its last use.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let row = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(table));
        if row.is_null() {
            return pg_sys::InvalidOid;
        }
        let owner = (*pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(row);
        owner
    }
}
