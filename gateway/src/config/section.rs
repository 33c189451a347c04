//! How settings are declared: one line each, from which the typed tree, its documentation, every way to set it and every
//! listing derive. Knows no single setting.

use super::value::Value;

/// What is known of a setting besides its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct About {
    /// The documentation at its declaration.
    pub(super) doc: &'static str,
    /// The default as it would be written in a file; `None` where the setting is unset by default.
    pub(super) default: Option<&'static str>,
}

/// Called with path, declaration and value of each setting in turn.
pub(super) type Visitor<'a> = &'a mut dyn FnMut(&str, &About, &mut dyn Value);

/// A place in the settings tree: a value, or a section that has places of its own.
pub(super) trait Place {
    /// Calls `visitor` for this value, or for every value below this section in the order of declaration.
    fn visit(&mut self, path: &str, about: &About, visitor: Visitor<'_>);
}

impl<V: Value> Place for V {
    fn visit(&mut self, path: &str, about: &About, visitor: Visitor<'_>) {
        visitor(path, about, self);
    }
}

/// `path` below `section`; the root of the tree has no name.
pub(super) fn join(section: &str, path: &str) -> String {
    if section.is_empty() { path.to_owned() } else { format!("{section}.{path}") }
}

/// Declares a section: documentation, name, type and default of each setting. A setting without default is unset.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident: $type:ty $(= $default:literal)?, )*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[doc = $doc])+ $( #[doc = concat!("\n\nDefault: `", $default, "`.")] )? pub $field: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: section!(@default $($default)?), )* }
            }
        }

        impl $crate::config::section::Place for $name {
            fn visit(
                &mut self,
                path: &str,
                _: &$crate::config::section::About,
                visitor: $crate::config::section::Visitor<'_>,
            ) {
                $(
                    let about = $crate::config::section::About {
                        doc: concat!($($doc),+).trim_ascii(),
                        default: section!(@about $($default)?),
                    };
                    let below = $crate::config::section::join(path, stringify!($field));
                    $crate::config::section::Place::visit(&mut self.$field, &below, &about, &mut *visitor);
                )*
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:literal) => { $crate::config::value::declared($default) };
    (@about) => { None };
    (@about $default:literal) => { Some($default) };
}

pub(super) use section;
