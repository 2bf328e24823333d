"""The report formats, in the order in which pages and documents show them."""

from web.reports import csv_table, isic_csv, json_lines

FORMATS = (csv_table.FORMAT, json_lines.FORMAT, isic_csv.FORMAT)
