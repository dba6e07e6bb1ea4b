"""Requests that fire: with the transaction of an order, and without."""

import json

from django.db import transaction
from django.forms.models import model_to_dict
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404

from solarwind import SolarWindError
from solarwind.contrib.django import wind

from .models import Order


def order(request: HttpRequest, number: int) -> JsonResponse:
    if request.method != "PUT":
        return JsonResponse(model_to_dict(get_object_or_404(Order, number=number)))
    product = json.loads(request.body)["product"]
    with transaction.atomic():  # the event exists if and only if the order does
        _, is_new = Order.objects.get_or_create(number=number, defaults={"product": product})
        if is_new:
            wind.outbox("default").fire("order.placed", {"number": number}, key=str(number))
    return JsonResponse({"number": number}, status=202)


async def seen(request: HttpRequest, number: int) -> JsonResponse:
    try:
        id = await wind.fire("order.seen", {"number": number}, within=2.0)
    except SolarWindError as error:
        return JsonResponse({"detail": str(error), "code": error.code}, status=503, headers={"Retry-After": "2"})
    return JsonResponse({"id": id}, status=202)
