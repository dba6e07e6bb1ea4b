"""Requests. An order and its event are in one transaction: there is never one without the other."""

import json

from django.db import transaction
from django.forms.models import model_to_dict
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404

from solarwind.contrib.django import wind

from .models import Order


def order(request: HttpRequest, number: int) -> JsonResponse:
    """`PUT` places an order, `GET` shows it. One that is sent twice is one order, and one event."""
    if request.method != "PUT":
        return JsonResponse(model_to_dict(get_object_or_404(Order, number=number)))
    product = json.loads(request.body)["product"]
    with transaction.atomic():
        _, is_new = Order.objects.get_or_create(number=number, defaults={"product": product})
        if is_new:
            wind.outbox("default").fire("order.placed", {"number": number}, key=str(number))
    return JsonResponse({"number": number}, status=202)
