"""Let the company live: write what a stretch of days brings into the three systems."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import batched
from typing import Any

import numpy as np

from warehouse.simulation import documents, people, shops
from warehouse.simulation.bson_values import object_ids
from warehouse.simulation.draws import Integers
from warehouse.simulation.events import payment_events
from warehouse.simulation.payments import Story, tell, transaction_rows
from warehouse.simulation.payouts import PayoutBook
