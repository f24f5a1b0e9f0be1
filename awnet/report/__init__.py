"""Reports: from records to tables, figures and one page. They rerun nothing."""

from awnet.report.checks import Doubt, doubts
from awnet.report.page import write_page
from awnet.report.tables import latex_table, markdown_table, rich_table, table

__all__ = ["Doubt", "doubts", "latex_table", "markdown_table", "rich_table", "table", "write_page"]
