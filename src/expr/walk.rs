//! Walks over plans and expressions of DataFusion, whose own are generic in the closure that they
//! call: each closure that is handed to them is a copy of the walk over every kind of node, about
//! 300 functions. Here they get it behind a reference, so that a kind of walk is compiled once for
//! a kind of tree.

use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion, TreeNodeRewriter};
use datafusion::logical_expr::{Expr, LogicalPlan};

type Inspected = Result<TreeNodeRecursion>;
type Mapped<T> = Result<Transformed<T>>;

/// The walks of [`TreeNode`], by the same names.
pub(crate) trait Walk: TreeNode {
    fn apply<'n>(&'n self, mut f: impl FnMut(&'n Self) -> Inspected) -> Inspected {
        TreeNode::apply(self, &mut f as &mut dyn FnMut(&'n Self) -> Inspected)
    }

    fn exists(&self, mut f: impl FnMut(&Self) -> Result<bool>) -> Result<bool> {
        TreeNode::exists(self, &mut f as &mut dyn FnMut(&Self) -> Result<bool>)
    }

    fn transform_up(self, mut f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self> {
        TreeNode::transform_up(self, &mut f as &mut dyn FnMut(Self) -> Mapped<Self>)
    }

    fn transform_down(self, mut f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self> {
        TreeNode::transform_down(self, &mut f as &mut dyn FnMut(Self) -> Mapped<Self>)
    }

    fn map_children(self, mut f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self> {
        TreeNode::map_children(self, &mut f as &mut dyn FnMut(Self) -> Mapped<Self>)
    }

    /// For a type of rewriter; the trait is none for objects.
    fn rewrite<R: TreeNodeRewriter<Node = Self>>(self, rewriter: &mut R) -> Mapped<Self> {
        TreeNode::rewrite(self, rewriter)
    }
}

impl<T: TreeNode> Walk for T {}

/// The walks of plans alone.
pub(crate) trait WalkPlan: Sized {
    /// Looks at the expressions of one node.
    fn each_expr(&self, f: impl FnMut(&Expr) -> Inspected) -> Inspected;
    /// Changes the expressions of one node.
    fn map_exprs(self, f: impl FnMut(Expr) -> Mapped<Expr>) -> Mapped<Self>;
    /// Looks at all nodes, those of subqueries included.
    fn each_node(&self, f: impl FnMut(&Self) -> Inspected) -> Inspected;
    /// Changes all nodes, those of subqueries included, the lowest first.
    fn map_nodes_up(self, f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self>;
    /// Changes all nodes, those of subqueries included, the root first.
    fn map_nodes_down(self, f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self>;
}

impl WalkPlan for LogicalPlan {
    fn each_expr(&self, mut f: impl FnMut(&Expr) -> Inspected) -> Inspected {
        self.apply_expressions(&mut f as &mut dyn FnMut(&Expr) -> Inspected)
    }

    fn map_exprs(self, mut f: impl FnMut(Expr) -> Mapped<Expr>) -> Mapped<Self> {
        self.map_expressions(&mut f as &mut dyn FnMut(Expr) -> Mapped<Expr>)
    }

    fn each_node(&self, mut f: impl FnMut(&Self) -> Inspected) -> Inspected {
        self.apply_with_subqueries(&mut f as &mut dyn FnMut(&Self) -> Inspected)
    }

    fn map_nodes_up(self, mut f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self> {
        self.transform_up_with_subqueries(&mut f as &mut dyn FnMut(Self) -> Mapped<Self>)
    }

    fn map_nodes_down(self, mut f: impl FnMut(Self) -> Mapped<Self>) -> Mapped<Self> {
        self.transform_down_with_subqueries(&mut f as &mut dyn FnMut(Self) -> Mapped<Self>)
    }
}
