"""The reports, worked out a second time: from the rows, documents and messages of the source systems, in polars.

Written from the definitions of the design and the published contracts. Nothing here reads a model, a macro, a raw table
or a module of the platform, so that the two can only agree by both being right. Money is whole ten-thousandths of a
unit, rates are whole quintillionths: no float touches either.
"""
